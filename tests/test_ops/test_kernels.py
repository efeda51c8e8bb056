# Copyright (c) mmseg_attn contributors.
"""The Triton kernels against the float64 of the torch path.

Without a GPU they run in Triton's interpreter: tests/conftest.py chooses it.
"""

import dataclasses
import importlib.util
import itertools
import sys

import pytest
import torch
from torch import library

pytest.importorskip('triton', reason='triton is not installed')

from mmseg_attn.ops import criss_cross_attention
from mmseg_attn.ops.core import axis as core_axis
from mmseg_attn.ops.declare import OPERATORS
from mmseg_attn.ops.kernels import attention, launch

DEVICE = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
HALVES = [torch.bfloat16, torch.float16]
pytestmark = [
    pytest.mark.skipif(
        launch.reason(DEVICE) is not None,
        reason=f'{launch.reason(DEVICE)}',
    ),
    # NumPy on the infinity within a sigmoid, in the interpreter.
    pytest.mark.filterwarnings('ignore:overflow encountered in exp'),
]
NAMES = 'out', 'lse', 'dq', 'dk', 'dv'


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Fresh buffers hold NaN: what a kernel does not write shows."""

    def poisoned(make):
        def wrapper(*args, **kwargs):
            x = make(*args, **kwargs)
            return x.fill_(torch.nan) if x.is_floating_point() else x

        return wrapper

    for owner, name in (
        (torch, 'empty'),
        (torch, 'empty_like'),
        (torch.Tensor, 'new_empty'),
    ):
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))


@pytest.fixture(autouse=True)
def bfloat16_in_the_interpreter(monkeypatch):
    """It multiplies the bits of bf16 as integers, and cuts off to bf16.

    A GPU multiplies in fp32 and rounds to the nearest.
    """
    if DEVICE.type == 'cuda':
        return
    tl = pytest.importorskip('triton.language')
    from triton.runtime import interpreter

    def cast(self, x, target, plain=interpreter.InterpreterBuilder.cast_impl):
        a, b = x.dtype.scalar, target.scalar
        if (a, b) == (tl.float32, tl.bfloat16):
            bits = torch.from_numpy(x.data.copy()).bfloat16()
            bits = bits.view(torch.int16).numpy().view('uint16')
        elif (a, b) == (tl.bfloat16, tl.float32):
            bits = torch.from_numpy(x.data.view('int16').copy())
            bits = bits.view(torch.bfloat16).float().numpy()
        else:
            return plain(self, x, target)
        return interpreter.TensorHandle(bits, b)

    def dot(
        self, a, b, *args, plain=interpreter.InterpreterBuilder.create_dot
    ):
        if a.dtype.scalar == tl.bfloat16:
            a, b = (cast(self, x, tl.float32) for x in (a, b))
        return plain(self, a, b, *args)

    monkeypatch.setattr(interpreter.InterpreterBuilder, 'cast_impl', cast)
    monkeypatch.setattr(interpreter.InterpreterBuilder, 'create_dot', dot)


def in_padding(x):
    """The same values as channels 1 .. -2 of wider rows of NaN."""
    wide = torch.nn.functional.pad(x, (1, 2), value=torch.nan)
    return wide[..., 1:-2]


def make(spatial, heads=1, dim=8, value_dim=16, dtype=torch.float32):
    """Query, key, value and gradient, rounded to the dtype, within NaN."""
    generator = torch.Generator().manual_seed(0)
    return [
        in_padding(
            torch.randn(2, *spatial, heads, width, generator=generator)
            .to(DEVICE)
            .to(dtype)
        )
        for width in (dim, dim, value_dim, value_dim)
    ]


def run(backend, query, key, value, grad, axes, scale=0.7):
    engine = core_axis.axis_engine(axes, scale, backend)
    out, lse = engine.attend(query, key, value)
    delta = (grad.to(lse) * out.to(lse)).sum(-1, keepdim=True)
    grads = [in_padding(torch.empty_like(x)) for x in (query, key, value)]
    engine.attend_backward(grad, query, key, value, delta, lse, out=grads)
    for x in grads:  # nothing beside the view was written
        assert x._base[..., 0].isnan().all()
        assert x._base[..., -2:].isnan().all()
    return out, lse, *grads


def dense(query, key, value, grad, axes, scale=0.7):
    """Attention of all to all with a mask, differentiated by autograd."""
    spatial = query.shape[1:-2]
    grid = torch.cartesian_prod(*map(torch.arange, spatial))
    differs = grid.view(-1, 1, len(spatial)) != grid.view(-1, len(spatial))
    other = [a for a in range(len(spatial)) if a not in axes]
    hidden = (differs.sum(-1) > 1) | differs[..., other].any(-1)
    leaves = [x.detach().clone().requires_grad_() for x in (query, key, value)]
    q, k, v = (x.flatten(1, -3).transpose(1, 2) for x in leaves)
    scores = scale * q @ k.mT
    scores = scores.masked_fill(hidden.to(q.device), -torch.inf)
    out = (scores.softmax(-1) @ v).transpose(1, 2).reshape(value.shape)
    lse = scores.logsumexp(-1).transpose(1, 2).reshape(*value.shape[:-1], 1)
    return out, lse, *torch.autograd.grad((out * grad).sum(), leaves)


def relative_error(x, truth):
    size = truth.abs().max().clamp(min=1)  # 0 where a line is one pixel
    return ((x.double() - truth).abs().max() / size).item()


def check(got, truth, limit):
    for name, a, b in zip(NAMES, got, truth, strict=True):
        assert a.shape == b.shape
        assert relative_error(a, b) <= limit, name


CASES = [
    # spatial, heads, dim, value_dim, axes
    ((1,), 1, 8, 1, [0]),
    ((7,), 2, 8, 16, [0]),
    ((1, 9), 1, 8, 16, [0, 1]),
    ((9, 1), 1, 8, 16, [0, 1]),
    ((1, 1), 1, 8, 16, [0, 1]),
    ((17, 3), 2, 24, 40, [0, 1]),
    ((2, 18), 1, 40, 130, [0, 1]),
    ((5, 6), 2, 8, 16, [0]),
    ((5, 6), 2, 8, 16, [1]),
    ((2, 3, 4), 1, 8, 10, [0, 1, 2]),
    ((3, 1, 2), 2, 8, 10, [0, 1, 2]),
    ((3, 2, 3), 1, 8, 10, [0, 2]),
    # Longer than a tile, the last key alone in its tile.
    ((33,), 2, 8, 40, [0]),
    ((33, 2), 1, 8, 16, [0, 1]),
    ((70,), 1, 24, 130, [0]),
    ((40,), 1, 72, 16, [0]),
]


@pytest.mark.parametrize('spatial, heads, dim, value_dim, axes', CASES)
def test_equals_float64(spatial, heads, dim, value_dim, axes):
    inputs = make(spatial, heads, dim, value_dim)
    exact = [x.double() for x in inputs]
    check(run('triton', *inputs, axes), run('torch', *exact, axes), 5e-6)
    check(run('triton', *inputs, axes), dense(*exact, axes), 5e-6)


@pytest.mark.parametrize('dtype', HALVES, ids=str)
@pytest.mark.parametrize('spatial', [(33, 5), (130,), (3, 4, 5)], ids=str)
def test_error_of_each_dtype(spatial, dtype):
    """At most twice (gradients: thrice) that of the reference in the dtype."""
    inputs = make(spatial, 1, 16, 24, dtype)
    axes = range(len(spatial))
    truth = run('torch', *(x.double() for x in inputs), axes)
    ours = run('triton', *inputs, axes)
    assert ours[1].dtype == torch.float32
    assert relative_error(ours[1], truth[1]) <= 1e-5
    leaves = [x.detach().clone().requires_grad_() for x in inputs[:3]]
    out = criss_cross_attention(*leaves, scale=0.7, backend='reference')
    theirs = out, None, *torch.autograd.grad(out, leaves, inputs[3])
    for i, name in enumerate(NAMES):
        if name != 'lse':
            assert ours[i].dtype == dtype
            limit = (3 if i else 2) * relative_error(theirs[i], truth[i])
            limit += torch.finfo(dtype).eps
            assert relative_error(ours[i], truth[i]) <= limit, name


@pytest.mark.parametrize('spatial', [(4, 5), (66,)], ids=str)
@pytest.mark.parametrize('dtype', [torch.float32, *HALVES], ids=str)
def test_extreme_scores_stay_finite(spatial, dtype):
    q, k, v, g = make(spatial, dtype=dtype)
    for factor in (0, 40):  # 40 * 40 * |q k|: scores of about 1e4
        inputs = q * factor, k * factor, v, g
        for x in run('triton', *inputs, range(len(spatial)), 1.0):
            assert x.isfinite().all()


@pytest.mark.parametrize('spatial', [(4, 6), (130,)], ids=str)
def test_gradients_of_scores_may_leave_the_range_of_fp16(spatial):
    """A scaled loss: <grad, value> is beyond 65,504, the gradients are not."""
    q, k, v, g = make(spatial, 1, 8, 64, torch.float16)
    inputs = q / 64, k / 64, v * 16, g * 8192
    truth = run('torch', *(x.double() for x in inputs), range(len(spatial)))
    assert (inputs[3].double() * inputs[2]).sum(-1).max() > 10 * 65504
    assert max(x.abs().max() for x in truth) < 65504
    check(run('triton', *inputs, range(len(spatial))), truth, 3e-3)


@pytest.mark.parametrize('spatial', [(3, 2), (33,)], ids=str)
def test_gradients_may_be_left_out(spatial):
    *qkv, grad = make(spatial)
    axes = range(len(spatial))
    out, lse, *expected = run('triton', *qkv, grad, axes)
    delta = (grad * out).sum(-1, keepdim=True)
    engine = core_axis.axis_engine(axes, 0.7, 'triton')
    for wanted in itertools.product([True, False], repeat=3):
        grads = [
            torch.empty_like(x) if w else None
            for x, w in zip(qkv, wanted, strict=True)
        ]
        if wanted == (False, False, True):
            grads[2] = qkv[2].copy_(torch.nan)  # over the value itself
        engine.attend_backward(grad, *qkv, delta, lse, out=grads)
        for a, b in zip(grads, expected, strict=True):
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_splits_of_one_projection():
    wide = torch.randn(2, 5, 6, 2, 8 + 8 + 24, device=DEVICE)
    parts = [*wide.split([8, 8, 24], -1), torch.randn(2, 5, 6, 2, 24)]
    parts[3] = parts[3].to(DEVICE)
    exact = [x.double() for x in parts]
    check(run('triton', *parts, [0, 1]), dense(*exact, [0, 1]), 5e-6)


def test_says_why_it_cannot_run(monkeypatch):
    assert launch.reason(DEVICE) is None
    monkeypatch.setattr(launch, 'INTERPRETED', False)
    cpu = torch.device('cpu')
    assert launch.reason(cpu) == 'needs a CUDA device, got cpu'


def test_can_be_imported_without_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, 'triton', None)
    spec = importlib.util.spec_from_file_location(
        'mmseg_attn.ops.kernels.without_triton', launch.__file__
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.reason(DEVICE) == (
        'triton is not installed: pip install triton'
    )


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(), None),
        (dict(spatial=(1025, 2), dim=128, value_dim=1025), None),
        (dict(dim=256, dtype=torch.float16), None),
        (dict(dim=7), 'needs a key width of 8 to 128 in torch.float32, got 7'),
        (dict(dim=129), 'got 129'),
        (dict(dim=257, dtype=torch.bfloat16), '8 to 256 in torch.bfloat16'),
        (dict(dtype=torch.float64), 'got torch.float64'),
    ],
)
def test_says_what_is_beyond_it(change, message):
    inputs = make(**{'spatial': (2, 3), **change})
    found = attention.limits(*inputs[:3])
    assert found is message or message in found


@pytest.mark.parametrize(
    'name, index',
    [
        (name, index)
        for name, declared in OPERATORS.items()
        if 'triton' in declared.backends
        for index in (0, 2, 4)
    ],
)
def test_as_a_backend_of_the_operators(name, index):
    """By its name, output and gradients, against the torch backend."""
    declared = OPERATORS[name]
    case = dataclasses.replace(declared.cases[index], dim=8)
    torch.manual_seed(0)
    inputs = [
        x.requires_grad_()
        for x in declared.inputs(case, dtype=torch.float32, device=DEVICE)
    ]
    results = []
    for backend in ('triton', 'torch'):
        out = declared.function(*inputs, **case.options, backend=backend)
        grads = torch.autograd.grad(out.square().sum(), inputs)
        results.append((out, *grads))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_custom_operator_passes_opcheck(monkeypatch):
    monkeypatch.undo()  # opcheck compares fresh buffers with themselves
    q, k, v = (
        torch.randn(1, 3, 4, 1, n, device=DEVICE, requires_grad=True)
        for n in (8, 8, 5)
    )
    library.opcheck(
        torch.ops.mmseg_attn.axis_attention.default,
        (q, k, v, [0, 1], 0.7, 'triton'),
        test_utils=('test_schema', 'test_autograd_registration'),
    )
