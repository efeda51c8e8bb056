# Copyright (c) mmseg_attn contributors.
"""The Triton kernels against the float64 of the torch path.

Without a GPU they run in Triton's interpreter: tests/conftest.py chooses it.
"""

import dataclasses
import importlib.util
import itertools
import sys
import warnings
from contextlib import ExitStack

import pytest
import torch
from torch import library

pytest.importorskip('triton', reason='triton is not installed')

from mmseg_attn.ops import criss_cross_attention, interlaced_sparse_attention
from mmseg_attn.ops.core import axis as core_axis
from mmseg_attn.ops.core import device
from mmseg_attn.ops.core.autograd import dots
from mmseg_attn.ops.declare import OPERATORS
from mmseg_attn.ops.kernels import attention, launch, tiles
from mmseg_attn.ops.kernels import delta as delta_kernel
from mmseg_attn.ops.kernels.delta import row_products_of
from mmseg_attn.ops.kernels.tiles import Tile

DEVICE = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
HALVES = [torch.bfloat16, torch.float16]
pytestmark = [
    pytest.mark.skipif(
        launch.reason(DEVICE) is not None,
        reason=f'{launch.reason(DEVICE)}',
    ),
    pytest.mark.usefixtures('products_of_tensor_cores'),
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


def hidden_keys(query, axes):
    """(n, n): which keys differ from the query in more than one axis."""
    spatial = query.shape[1:-2]
    grid = torch.cartesian_prod(*map(torch.arange, spatial))
    differs = grid.view(-1, 1, len(spatial)) != grid.view(-1, len(spatial))
    other = [a for a in range(len(spatial)) if a not in axes]
    hidden = (differs.sum(-1) > 1) | differs[..., other].any(-1)
    return hidden.to(query.device)


def dense(query, key, value, grad, axes, scale=0.7):
    """Attention of all to all with a mask, differentiated by autograd."""
    leaves = [x.detach().clone().requires_grad_() for x in (query, key, value)]
    q, k, v = (x.flatten(1, -3).transpose(1, 2) for x in leaves)
    scores = scale * q @ k.mT
    scores = scores.masked_fill(hidden_keys(query, axes), -torch.inf)
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


@pytest.fixture
def fixed_order():
    """Gradients that are the same in every run, to the bit."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures('fixed_order')
@pytest.mark.parametrize(
    'spatial, heads, dim, value_dim, axes', CASES[::3] + CASES[-2:]
)
def test_deterministic_gradients(spatial, heads, dim, value_dim, axes):
    inputs = make(spatial, heads, dim, value_dim)
    with launch.recorded() as launches:
        got = run('triton', *inputs, axes)
    check(got, run('torch', *(x.double() for x in inputs), axes), 5e-6)
    names = {x.name for x in launches}
    assert names == {'attend_lines', 'score_gradients', 'value_gradients'}


@pytest.mark.parametrize('in_order', [False, True])
def test_parts_of_the_channels_of_two_axes(in_order):
    """No part of the channels reads what another one has written."""
    inputs = make((5, 18), 1, 8, 40)
    tile = Tile(16, 16, 16)
    torch.use_deterministic_algorithms(in_order)
    with ExitStack() as stack:
        stack.callback(torch.use_deterministic_algorithms, False)
        for family in tiles.FAMILIES:
            stack.enter_context(tiles.chosen(family, tile))
        got = run('triton', *inputs, [0, 1])
    check(got, run('torch', *(x.double() for x in inputs), [0, 1]), 5e-6)


def described(monkeypatch):
    """Counts kernels that are given descriptors."""
    found = []
    plain = attention.Problem.descriptors

    def descriptors(self, *tensors):
        found.append(plain(self, *tensors))
        return found[-1]

    monkeypatch.setattr(attention.Problem, 'descriptors', descriptors)
    return found


@pytest.mark.parametrize('heads, spatial', [(2, (17,)), (1, (2, 3))])
def test_fetching_by_descriptors_changes_nothing(heads, spatial, monkeypatch):
    """The same tiles by TMA and by pointers."""
    if DEVICE.type == 'cuda' and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip('needs a GPU of compute capability 9.0 or more')
    inputs = [x.contiguous() for x in make(spatial, heads, 8, 40)]
    axes = range(len(spatial))
    engine = core_axis.axis_engine(axes, 0.7, 'triton')
    found = described(monkeypatch)
    results = []
    for tma in (False, True):
        tile = Tile(16, 16, 32, tma=tma)
        with tiles.chosen('forward', tile), tiles.chosen('backward', tile):
            *qkv, grad = inputs
            out, lse = engine.attend(*qkv)
            delta = row_products_of(grad, out)
            grads = [torch.empty_like(x) for x in qkv]
            engine.attend_backward(grad, *qkv, delta, lse, out=grads)
        results.append((out, lse, *grads))
    check(results[1], results[0], 1e-6)
    kernels = 2 * len(spatial)
    assert found[:kernels] == [None] * kernels and None not in found[kernels:]


@pytest.mark.parametrize('heads, spatial', [(1, (3, 18)), (2, (17, 2))])
def test_both_axes_in_one_launch(heads, spatial):
    inputs = make(spatial, heads, 8, 40)
    truth = run('torch', *(x.double() for x in inputs), [0, 1])
    tile = Tile(16, 16, 16, together=True)
    with tiles.chosen('forward', tile), launch.recorded() as launches:
        got = run('triton', *inputs, [0, 1])
    check(got, truth, 5e-6)
    assert [x.name for x in launches][:2] == [
        'attend_crossing_lines',
        'line_gradients',
    ]


def of_12_bytes_more(x):
    return x


def from_8_bytes_on(x):
    """Whole 16 bytes apart."""
    wide = torch.nn.functional.pad(x, (2, -x.shape[-1] % 4 + 2))
    return wide[..., 2 : 2 + x.shape[-1]]


@pytest.mark.parametrize('lay', [of_12_bytes_more, from_8_bytes_on])
def test_rows_that_descriptors_cannot_take(lay, monkeypatch):
    """Pointers take them."""
    found = described(monkeypatch)
    inputs = [lay(x) for x in make((9, 5), 1, 8, 12)]
    with tiles.chosen('forward', Tile(16, 16, 16, tma=True)):
        out, _ = core_axis.axis_engine([0, 1], 0.7, 'triton').attend(
            *inputs[:3]
        )
    assert found == [None, None]
    truth = run('torch', *(x.double() for x in inputs), [0, 1])[0]
    torch.testing.assert_close(out.double(), truth, rtol=0, atol=1e-5)


def test_one_row_for_all_is_left_to_pointers(monkeypatch):
    """A gradient that is the same everywhere, as of a global mean."""
    found = described(monkeypatch)
    *qkv, grad = (x.contiguous() for x in make((5, 6), 1, 8, 16))
    grad = grad[:1, :1, :1].expand(grad.shape)
    with tiles.chosen('backward', Tile(16, 16, 16, tma=True)):
        results = []
        for given in (grad, grad.contiguous()):
            engine = core_axis.axis_engine([0, 1], 0.7, 'triton')
            out, lse = engine.attend(*qkv)
            delta = row_products_of(given, out)
            grads = [torch.empty_like(x) for x in qkv]
            engine.attend_backward(given, *qkv, delta, lse, out=grads)
            results.append(grads)
    described_ = [x is not None for x in found]
    assert described_ == [False] * 4 + [False] * 2 + [True] * 2
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('generation', [(80, 163), (86, 99), (90, 227)])
@pytest.mark.parametrize('dtype', DTYPES[:2], ids=str)
def test_tiles_of_each_card(generation, dtype, monkeypatch):
    """All of the table is right, whatever card it is for."""
    monkeypatch.setattr(tiles, 'card_of', lambda device: generation)
    inputs = make((70,), 1, 64, 260, dtype)
    truth = run('torch', *(x.double() for x in inputs), [0], 0.1)
    got = run('triton', *inputs, [0], 0.1)
    check(got, truth, 5e-6 if dtype == torch.float32 else 2e-2)


def test_what_a_card_lacks_its_tiles_do_not_want(monkeypatch):
    """Shared memory of which a card has less than its generation, and TMA."""
    given = 'forward', DEVICE, 2, 64, 512, 2**30
    monkeypatch.setattr(tiles, 'card_of', lambda device: (90, 99))
    assert tiles.tile_of(*given) == tiles.TABLE['forward', 2, 64][0]
    monkeypatch.setattr(tiles, 'card_of', lambda device: (80, 163))
    with tiles.chosen('forward', Tile(64, 64, 64, tma=True)):
        assert tiles.tile_of(*given) == Tile(64, 64, 64)


def test_delta_reads_each_map_once():
    grad, out = (x.half() for x in make((5, 7), 3, 8, 600)[2:])
    with launch.recorded() as launches:
        delta = row_products_of(grad, out)
    truth = (grad.double() * out.double()).sum(-1, keepdim=True)
    torch.testing.assert_close(delta.double(), truth, rtol=1e-5, atol=1e-4)
    (only,) = launches
    assert only.read == 2 * grad.numel() * 2 and only.written == delta.nbytes


def test_rows_that_have_gaps_are_left_to_torch(monkeypatch):
    grad, out = make((5, 7), 3, 8, 6)[2:]
    assert row_products_of(grad.movedim(1, 2), out.movedim(1, 2)) is None
    assert row_products_of(grad.double(), out.double()) is None
    monkeypatch.setattr(device, 'on_gpu', lambda x: True)
    for a, b in ((grad.movedim(1, 2), out.movedim(1, 2)), (grad, out)):
        truth = (a.double() * b.double()).sum(-1, keepdim=True)
        got = dots(a, b).double()
        torch.testing.assert_close(got, truth, rtol=1e-5, atol=1e-5)


def with_operands_cut_off(query, key, value, grad, axes, scale):
    """As `dense`, without lse: each product's operands have TF32's bits."""

    def cut(x):
        bits = x.float().contiguous().view(torch.int32) & -0x2000
        return bits.view(torch.float32).double()

    rows = [x.flatten(1, -3).transpose(1, 2) for x in (query, key, value)]
    g = grad.flatten(1, -3).transpose(1, 2)
    q, k, v, g_cut = map(cut, (*rows, g))
    hidden = hidden_keys(query, axes)
    weights = (scale * q @ k.mT).masked_fill(hidden, -torch.inf).softmax(-1)
    out = cut(weights) @ v
    scores = weights * (g_cut @ v.mT - (g * out).sum(-1, keepdim=True))
    grads = scale * cut(scores) @ k, scale * cut(scores).mT @ q
    results = out, *grads, cut(weights).mT @ g_cut
    out, *grads = (
        x.transpose(1, 2).reshape(like.shape)
        for x, like in zip(results, (value, query, key, value), strict=True)
    )
    return out, None, *grads


@pytest.mark.parametrize('tf32', [False, True])
def test_error_of_fp32_on_tensor_cores(tf32, monkeypatch):
    """Three TF32 products are as good as fp32; one, if allowed, is TF32."""
    monkeypatch.setattr(tiles, 'tf32_is_allowed', lambda: tf32)
    inputs = make((18, 3), 1, 32, 48)
    truth = run('torch', *(x.double() for x in inputs), [0, 1], 0.1)
    ours = run('triton', *inputs, [0, 1], 0.1)
    cut = with_operands_cut_off(*inputs, [0, 1], 0.1)
    leaves = [x.detach().clone().requires_grad_() for x in inputs[:3]]
    out = criss_cross_attention(*leaves, scale=0.1, backend='reference')
    theirs = out, None, *torch.autograd.grad(out, leaves, inputs[3])
    for i, name in enumerate(NAMES):
        if name != 'lse':
            error = relative_error(ours[i], truth[i])
            limit = (3 if i else 2) * relative_error(theirs[i], truth[i])
            limit += torch.finfo(torch.float32).eps
            if tf32:
                assert error > 10 * limit, f'{name}: was it used?'
                limit = 2 * relative_error(cut[i], truth[i])
            assert error <= limit, name


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
    case = declared.cases[index]
    # Still several tiles: Triton's interpreter takes its time.
    few = tuple(min(side, 12) for side in case.spatial)
    case = dataclasses.replace(case, dim=8, spatial=few)
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
        assert relative_error(got, expected) <= 1e-5


INTERLACED = [
    ((8, 6), (2, 3), 'attend', 2),
    ((9, 7), (4, 3), 'mask', 1),
    ((7,), (3,), 'attend', 2),
]


@pytest.mark.parametrize('span', ['long', 'short'])
@pytest.mark.parametrize('spatial, partition, padding, heads', INTERLACED)
def test_groups_of_two_strides(spatial, partition, padding, heads, span):
    """Interlaced attention, of one and two axes."""
    inputs = [
        x.detach().contiguous().requires_grad_()
        for x in make(spatial, heads, 8, 12)[:3]
    ]
    options = dict(partition=partition, span=span, padding=padding)
    results = []
    for backend in ('triton', 'reference'):
        wide = inputs
        if backend == 'reference':
            wide = [x.detach().double().requires_grad_() for x in inputs]
        out = interlaced_sparse_attention(
            *wide, **options, scale=0.7, backend=backend
        )
        grads = torch.autograd.grad(out.square().sum(), wide)
        results.append((out, *grads))
    for got, expected in zip(*results, strict=True):
        assert relative_error(got, expected) <= 5e-6


@pytest.mark.parametrize('span', ['long', 'short'])
def test_padding_is_masked_whatever_the_strides(span):
    """Of a map (B, heads * dim, n), whose positions lie side by side."""
    inputs = [
        x.movedim(1, -1).contiguous().movedim(-1, 1)
        for x in make((7,), 2, 8, 12)[:3]
    ]
    options = dict(partition=(3,), span=span, padding='mask')
    got, expected = (
        interlaced_sparse_attention(*inputs, **options, backend=backend)
        for backend in ('triton', 'reference')
    )
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_three_axes_of_groups_are_refused():
    inputs = make((2, 2, 4))[:3]
    with pytest.raises(RuntimeError, match='at most 2 spatial axes, got 3'):
        interlaced_sparse_attention(
            *inputs, partition=(1, 1, 2), span='long', backend='triton'
        )


@pytest.mark.parametrize('failing', ['attend_lines', 'line_gradients'])
def test_a_kernel_that_fails_is_replaced_with_one_warning(
    failing, monkeypatch
):
    """As on a card with less shared memory than a tile needs."""
    monkeypatch.setattr(launch, 'failures', {})
    monkeypatch.setattr(device, 'on_gpu', lambda x: True)

    class Fails:
        __name__ = failing

        def __getitem__(self, grid):
            raise RuntimeError('out of resource: shared memory, Required: 9')

    monkeypatch.setattr(launch, 'INTERPRETED', False)
    monkeypatch.setattr(launch, 'reason', lambda device: None)
    monkeypatch.setattr(attention, failing, Fails())
    inputs = [
        x.detach().contiguous().requires_grad_() for x in make((4, 5))[:3]
    ]

    def step(backend=None):
        out = criss_cross_attention(*inputs, backend=backend)
        return out, *torch.autograd.grad(out.square().sum(), inputs)

    with pytest.warns(UserWarning, match='shared memory, Required: 9') as seen:
        got = step()
    assert len([w for w in seen if 'torch is used' in str(w.message)]) == 1
    assert failing in str(seen[0].message)
    for a, b in zip(got, step('torch'), strict=True):
        assert relative_error(a, b.double()) <= 5e-6
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        step()
    with pytest.raises(RuntimeError, match=failing):
        step('triton')


def test_an_error_of_the_card_is_raised(monkeypatch):
    """After an illegal access nothing runs, torch neither."""
    monkeypatch.setattr(launch, 'failures', {})
    monkeypatch.setattr(device, 'on_gpu', lambda x: True)
    monkeypatch.setattr(launch, 'INTERPRETED', False)
    monkeypatch.setattr(launch, 'reason', lambda device: None)

    class Fails:
        __name__ = 'attend_lines'

        def __getitem__(self, grid):
            raise RuntimeError('Triton Error [CUDA]: an illegal memory access')

    monkeypatch.setattr(attention, 'attend_lines', Fails())
    with pytest.raises(RuntimeError, match='illegal memory') as caught:
        criss_cross_attention(*make((4, 5))[:3])
    assert not isinstance(caught.value, launch.KernelFailed)
    assert not launch.failures


def test_a_failure_is_that_of_its_widths(monkeypatch):
    inputs = [x.contiguous() for x in make((4, 5), 1, 8, 16)[:3]]
    kind = inputs[0].device, inputs[0].dtype, 8, 16
    monkeypatch.setattr(launch, 'failures', {kind: 'too large a tile'})
    with pytest.raises(RuntimeError, match='too large a tile'):
        criss_cross_attention(*inputs, backend='triton')
    others = make((4, 5), 1, 8, 24)[:3]
    criss_cross_attention(*others, backend='triton')


def test_compiled_gates_have_torch_for_a_kernel_that_fails(monkeypatch):
    monkeypatch.setattr(launch, 'failures', {})
    monkeypatch.setattr(device, 'on_gpu', lambda x: True)

    def fails(*args, **options):
        raise launch.KernelFailed('too large a tile')

    monkeypatch.setattr(attention, 'launch', fails)
    inputs = [x.detach().contiguous() for x in make((4, 5))[:3]]
    declared = OPERATORS['channelized_axial_attention']
    options = declared.cases[0].options
    torch.compiler.reset()
    compiled = torch.compile(declared.function, backend='eager')
    with pytest.warns(UserWarning, match='too large a tile: torch is used'):
        got = compiled(*inputs, **options)
    expected = declared.function(*inputs, **options, backend='reference')
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_products_that_fail_are_not_compiled_again(monkeypatch):
    tried = []

    def fails(*args, **options):
        tried.append(args)
        raise launch.KernelFailed('no C compiler')

    monkeypatch.setattr(delta_kernel, 'launch', fails)
    monkeypatch.setattr(launch, 'failures', {})
    grad, out = make((5, 7), 3, 8, 6)[2:]
    with pytest.warns(UserWarning, match='no C compiler: torch is') as seen:
        assert row_products_of(grad, out) is None
        assert row_products_of(grad, out) is None
    assert len(seen) == len(tried) == 1


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
