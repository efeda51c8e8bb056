# Copyright (c) mmseg_attn contributors.
"""The layers' steps on a GPU, run on the CPU and counted on the meta device.

The Triton kernels among them run in Triton's interpreter.
"""

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from mmseg_attn import layers
from mmseg_attn.layers import criss_cross_gpu, efficient, linear
from mmseg_attn.layers.projected import ProjectedAttention
from mmseg_attn.layers.projected_gpu import Projection, Reprojection
from mmseg_attn.layers.residual import (
    Residual,
    add_residual,
    residual_backward,
)
from mmseg_attn.ops.core import device
from mmseg_attn.ops.core.autograd import Engine
from mmseg_attn.ops.declare import OPERATORS
from mmseg_attn.ops.kernels import launch
from mmseg_attn.ops.kernels import residual as kernels

pytestmark = [
    pytest.mark.usefixtures('products_of_tensor_cores'),
    pytest.mark.filterwarnings('ignore:overflow encountered in exp'),
]
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
TOOLS = Path(__file__).resolve().parents[2] / 'tools/benchmark'
CHANNELS = 24
# Those with 1x1 convolutions or a residual for a GPU, with parameters that do
# something to CHANNELS channels.
LAYERS = {
    name: dict(gamma_init=0.6)
    for name in layers.__all__
    if issubclass(getattr(layers, name), ProjectedAttention)
} | {
    'ChannelLinearAttention': dict(gamma_init=0.6),
    'CrissCrossAttention': dict(gamma_init=0.6, reduction=3),
    'EfficientAttention': dict(num_heads=2),
}
# Those whose gradients autocast does not change.
TUNED = [
    name
    for name in LAYERS
    if hasattr(getattr(layers, name), 'projections')
    and not any(
        hasattr(sys.modules[getattr(layers, name).__module__], operator)
        for operator, declared in OPERATORS.items()
        if declared.plain
    )
]
SPATIAL = [(7,), (1, 1), (1, 9), (8, 1), (13, 6), (3, 4, 5)]
HALVES = [torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def gpu_way(monkeypatch):
    """The CPU goes the GPU's way; fresh buffers hold NaN."""
    monkeypatch.setattr(device, 'on_gpu', lambda x: True)
    for owner, name in (
        (torch, 'empty_like'),
        (torch.Tensor, 'new_empty'),
    ):
        make = getattr(owner, name)
        monkeypatch.setattr(
            owner,
            name,
            lambda *args, make=make, **kwargs: (
                x.fill_(torch.nan)
                if (x := make(*args, **kwargs)).is_floating_point()
                else x
            ),
        )


@pytest.fixture(params=['triton', 'torch'])
def residual_by(request, monkeypatch):
    """The residual by its kernels and without Triton."""
    if request.param == 'torch':
        monkeypatch.setattr(kernels, 'can_run', lambda x: False)
    elif launch.triton is None:
        pytest.skip('triton is not installed')


def build(name, spatial=(5, 6), dtype=torch.float64, **options):
    torch.manual_seed(0)
    options = {**LAYERS[name], **options}
    if name != 'ChannelLinearAttention':
        options['spatial_dims'] = len(spatial)
    return getattr(layers, name)(CHANNELS, **options).to(DEVICE, dtype)


def plain(layer, dtype=None):
    """A copy that takes the paper's equation and separate steps."""
    layer = copy.deepcopy(layer).to(dtype)
    for options in (getattr(layer, 'options', {}), vars(layer)):
        if 'backend' in options:
            options['backend'] = 'reference'
    return layer


def maps(spatial, dtype=torch.float64, channels_last=False):
    """An input and a gradient."""
    pair = torch.randn(2, 2, CHANNELS, *spatial).to(DEVICE, dtype).unbind()
    return map(by_pixels, pair) if channels_last else pair


def by_pixels(x):
    """The same map in the memory format channels_last."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def run(layer, x, grad):
    """Output and the gradients of the input and of each parameter."""
    x = x.detach().requires_grad_()
    y = layer(x)
    inputs = [x, *layer.parameters()]
    return [y, *torch.autograd.grad(y, inputs, grad.to(y.dtype))]


def check_errors(ours, theirs, truth, grad, dtype):
    """At most twice (gradients: thrice) that of plain steps in the dtype."""
    eps = max(torch.finfo(dtype).eps, 1e-6)
    for i, tensors in enumerate(zip(ours, theirs, truth, strict=True)):
        got, other, exact = tensors
        assert got.dtype == other.dtype
        size = exact.abs().max()
        if size < 1e-12:
            continue  # of the keys' bias: nothing but rounding to compare
        if exact.numel() == 1:  # gamma's, a sum over the whole map
            size = grad.double().norm()
        error, usual = (
            (t.double() - exact).abs().max() / size for t in (got, other)
        )
        assert error <= (3 if i else 2) * usual + eps, i


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('spatial', SPATIAL, ids=str)
@pytest.mark.parametrize('name', LAYERS)
def test_equals_the_plain_steps(name, spatial, channels_last):
    layer = build(name, spatial)
    x, grad = maps(spatial, channels_last=channels_last)
    ours = run(layer, x, grad)
    assert ours[0].stride() == x.stride()
    assert ours[1].stride() == grad.stride()
    for got, truth in zip(ours, run(plain(layer), x, grad), strict=True):
        torch.testing.assert_close(got, truth, rtol=0, atol=1e-11)


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('dtype', [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize('name', LAYERS)
def test_error_of_each_dtype(name, dtype, channels_last, residual_by):
    layer = build(name, (5, 6), dtype)
    x, grad = maps((5, 6), dtype, channels_last)
    ours = run(layer, x, grad)
    assert {t.dtype for t in ours} == {dtype}
    truth = run(plain(layer, torch.float64), x.double(), grad.double())
    check_errors(ours, run(plain(layer), x, grad), truth, grad, dtype)


@pytest.mark.parametrize(
    'given, channels_last', [(0, False), (0, True), (1, False)]
)
@pytest.mark.parametrize('dtype', HALVES, ids=str)
@pytest.mark.parametrize('name', LAYERS)
def test_autocast(name, dtype, given, channels_last):
    """As plain steps: dtypes, and the error, of fp32 maps or narrow ones."""
    layer = build(name, (5, 6), torch.float32, backend='torch')
    given = (torch.float32, dtype)[given]
    x, grad = maps((5, 6), given, channels_last)
    truth = run(plain(layer, torch.float64), x.double(), grad.double())
    results = []
    for module in (layer, plain(layer)):
        leaf = x.detach().requires_grad_()
        inputs = [leaf, *module.parameters()]
        with torch.autocast(DEVICE, dtype):
            y = module(leaf)
        outside = torch.autograd.grad(y, inputs, grad, retain_graph=True)
        with torch.autocast(DEVICE, dtype):
            inside = torch.autograd.grad(y, inputs, grad)
        results.append([y, *outside])
        if module is layer and name in TUNED:
            for a, b in zip(outside, inside, strict=True):
                assert torch.equal(a, b)
    check_errors(*results, truth, grad, dtype)


@pytest.mark.parametrize('name', LAYERS)
def test_gradcheck(name, residual_by):
    layer = build(name, (2, 3))
    x = maps((2, 3))[0].requires_grad_()
    tensors = (x, *layer.parameters())
    assert torch.autograd.gradcheck(
        lambda *_: layer(x), tensors, fast_mode=True
    )


@pytest.mark.parametrize('name', LAYERS)
def test_map_and_gradient_of_any_strides(name):
    layer = build(name)
    wide, grad = maps((7, 9))
    x, grad = wide[..., 1:6, 2:8], grad[..., :5, :6].mT.contiguous().mT
    for got, truth in zip(
        run(layer, x, grad), run(plain(layer), x, grad), strict=True
    ):
        torch.testing.assert_close(got, truth, rtol=0, atol=1e-11)
    constant = torch.ones_like(x[0, 0, 0, 0]).expand(x.shape)
    for got, truth in zip(
        run(layer, x, constant), run(plain(layer), x, constant), strict=True
    ):
        torch.testing.assert_close(got, truth, rtol=0, atol=1e-11)


@pytest.mark.parametrize('name', LAYERS)
def test_what_is_frozen_changes_nothing_else(name):
    layer = build(name)
    x, grad = maps((5, 6))
    expected = run(layer, x, grad)[1:]
    count = len(expected)
    for kept in ([0], [count - 1], [1], list(range(1, count))):
        leaf = x.detach()
        inputs = [leaf, *layer.parameters()]
        for i, tensor in enumerate(inputs):
            tensor.requires_grad_(i in kept)
        got = torch.autograd.grad(layer(leaf), [inputs[i] for i in kept], grad)
        for i, g in zip(kept, got, strict=True):
            torch.testing.assert_close(g, expected[i])


@pytest.mark.parametrize('name', LAYERS)
def test_backward_can_be_repeated_but_not_differentiated(name):
    layer = build(name)
    x, grad = maps((5, 6))
    x.requires_grad_()
    inputs = [x, *layer.parameters()]
    y = layer(x)
    first, second, third = (
        torch.autograd.grad(y, inputs, grad, retain_graph=keep)
        for keep in (True, True, False)
    )
    for a, b, c in zip(first, second, third, strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)
    with pytest.raises(RuntimeError, match="backend='reference'"):
        torch.autograd.grad(layer(x).sum(), x, create_graph=True)
    (slope,) = torch.autograd.grad(
        plain(layer)(x).square().sum(), x, create_graph=True
    )
    assert slope.requires_grad


@pytest.mark.parametrize('reentrant', [True, False])
@pytest.mark.parametrize('name', LAYERS)
def test_can_be_checkpointed(name, reentrant):
    """Twice, so that the gradients add up in .grad."""
    layer = build(name)
    x, grad = maps((5, 6))
    _, *expected = run(layer, x, grad)
    x.requires_grad_()
    for _ in range(2):
        checkpoint(layer, x, use_reentrant=reentrant).backward(grad)
    for tensor, once in zip((x, *layer.parameters()), expected, strict=True):
        torch.testing.assert_close(tensor.grad, 2 * once)


@pytest.mark.parametrize('name', LAYERS)
def test_output_may_be_changed_in_place(name):
    layer = build(name)
    x, grad = maps((5, 6))
    x.requires_grad_()
    (expected,) = torch.autograd.grad(layer(x).square(), x, grad)
    y = layer(x)
    y.mul_(y.detach().clone())
    (got,) = torch.autograd.grad(2 * y, x, grad)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize('axis', [0, 1])
def test_criss_cross_layer_along_one_axis(axis, residual_by):
    layer = build('CrissCrossAttention', (4, 7), axis=axis)
    x, grad = maps((4, 7))
    for ours, theirs in zip(
        run(layer, x, grad), run(plain(layer), x, grad), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


STEPS = criss_cross_gpu.CrissCrossStep, Projection, Reprojection, Residual


@pytest.mark.parametrize('name', LAYERS)
def test_compilers_see_plain_steps(name, monkeypatch):
    layer = build(name)
    x, _ = maps((5, 6))
    expected = layer(x)
    for step in STEPS:
        monkeypatch.setattr(step, 'forward', None)
    with pytest.raises(TypeError):
        layer(x)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(x), expected)
    exported = torch.export.export(layer, (x,)).module()
    torch.testing.assert_close(exported(x), expected)


@pytest.mark.parametrize('name', LAYERS)
def test_changed_projections_are_called(name):
    x, _ = maps((5, 6))
    for i in range(len(list(build(name).children()))):
        changed, doubled = build(name), build(name)
        conv = list(changed.children())[i]
        if not isinstance(conv, torch.nn.Conv2d):
            continue
        conv.register_forward_hook(lambda *args: 2 * args[-1])
        for p in list(doubled.children())[i].parameters():
            p.data *= 2
        assert not torch.equal(changed(x), build(name)(x))
        torch.testing.assert_close(changed(x), doubled(x))


def test_fp16_gradients_of_a_layer_that_starts_as_the_identity():
    """What gamma = 0 multiplies must not have left the range of fp16."""
    layer = build('CrissCrossAttention', (6, 7), torch.float16, gamma_init=0)
    x, grad = maps((6, 7), torch.float16)
    for got in run(layer, x * 8, grad * 8192)[1:-1]:
        assert got.isfinite().all()


def test_unknown_and_meta_tensors_are_explained():
    with pytest.raises(ValueError, match='meta device'):
        build('CrissCrossAttention').to('meta')(maps((5, 6))[0].to('meta'))


# The residual's kernels


@pytest.mark.parametrize('over', [True, False])
@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize(
    'shape',
    [(1, 1, 1), (3, 64, 8, 8), (2, 65, 67), (2, 130, 3, 5, 5)],
    ids=str,
)
@pytest.mark.parametrize(
    'dtypes',
    [
        (torch.float32, torch.float32),
        (torch.float32, torch.bfloat16),
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float16),
    ],
    ids=str,
)
def test_residual(shape, dtypes, channels_last, over, residual_by):
    """Values, written over the rows or beside them, and a copy."""
    torch.manual_seed(0)
    x, grad, rows = torch.randn(3, *shape, device=DEVICE).double().unbind()
    gamma = torch.tensor([0.7], device=DEVICE)
    x, grad = x.to(dtypes[0]), grad.to(dtypes[0])
    if channels_last:
        x, grad = map(by_pixels, (x, grad))
    rows = rows.to(dtypes[1])
    pixels = rows.movedim(1, -1).unsqueeze(-2).contiguous()
    y = add_residual(x, gamma, pixels)
    assert y.dtype == dtypes[0] and y.stride() == x.stride()
    factor = gamma.double()
    eps = max(torch.finfo(dtype).eps for dtype in dtypes)
    exact = dict(rtol=eps, atol=max(eps, 1e-5))
    torch.testing.assert_close(
        y.double(), x.double() + factor * rows.double(), **exact
    )
    drows = pixels if over else torch.empty_like(pixels)
    copied = torch.empty_like(grad)
    truth = (grad.double() * rows.double()).sum(1)
    delta = residual_backward(grad, gamma, pixels, drows, copied)
    assert delta.dtype == torch.float32 and torch.equal(copied, grad)
    torch.testing.assert_close(
        delta[..., 0, 0].double(), truth, rtol=1e-5, atol=1e-4
    )
    torch.testing.assert_close(
        drows.squeeze(-2).movedim(-1, 1).double(),
        factor * grad.double(),
        **exact,
    )
    again = residual_backward(grad, gamma, pixels, None)
    if not over:
        assert torch.equal(again, delta)


def test_residual_of_rows_of_any_strides():
    torch.manual_seed(0)
    x, gamma = torch.randn(2, 6, 3, 5), torch.tensor(0.5)
    rows = torch.randn(2, 6, 3, 5).movedim(1, -1).unsqueeze(-2)
    y = Residual.apply(x, gamma, rows)
    torch.testing.assert_close(y, x + 0.5 * rows.squeeze(-2).movedim(-1, 1))


def test_torch_stands_in_for_a_kernel_that_fails(monkeypatch, recwarn):
    def fail(*args, **kwargs):
        raise launch.KernelFailed('no C compiler')

    monkeypatch.setattr('mmseg_attn.ops.kernels.launch.failures', {})
    monkeypatch.setattr(kernels, 'launch', fail)
    layer = build('LinearAttention', dtype=torch.float32)
    x, grad = maps((5, 6), torch.float32)
    ours, theirs = run(layer, x, grad), run(plain(layer), x, grad)
    for got, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    messages = [str(w.message) for w in recwarn if 'no C' in str(w.message)]
    assert messages == [
        'no C compiler: torch is used instead for torch.float32'
    ]


# What the GPU would move


class Nothing(torch.autograd.Function):
    """Stands for an attention: what it makes, and makes no difference to."""

    @staticmethod
    def forward(ctx, *tensors):
        ctx.save_for_backward(*tensors)
        return torch.empty(tensors[-1].shape, device='meta', dtype=HALF)

    @staticmethod
    def backward(ctx, grad):
        return (*(x.new_empty(x.shape) for x in ctx.saved_tensors),)


HALF = torch.bfloat16
ENGINE = Engine(
    lambda *qkv: (
        Nothing.apply(*qkv),
        qkv[0].new_empty(*qkv[0].shape[:-1], 1),
    ),
    lambda *rows, out: None,
    widens=False,
)


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize(
    'name, forward, backward',
    [
        # Rows of 1.25 maps; map, output and result of the residual (3); the
        # products' operands. Backward: gradient and output in, attention's
        # gradient and a copy out (4); products for the parameters (2.25) and
        # the map (3.25), the biases' sums (1.25).
        ('CrissCrossAttention', 5.5, 11.25),
        # No copy on the way (3), but one for the product (2); the gradients
        # of query, key and value put together (2.5).
        ('LinearAttention', 5.5, 14.75),
        # Rows of 2 maps.
        ('EfficientAttention', 8.5, 20.75),
        ('ChannelLinearAttention', 5.25, 8.25),
    ],
)
def test_maps_moved_around_the_attention(
    name, forward, backward, channels_last, monkeypatch
):
    """At 2x512x97x97, the attention left out.

    With three convolutions and a residual of torch's it is 16 maps and 36
    (criss-cross, linear), 26 and 42 (efficient), 7 and 15 (between channels).
    """
    pytest.importorskip('triton')
    monkeypatch.undo()  # nothing is written but by the layer
    monkeypatch.syspath_prepend(str(TOOLS))
    counted = pytest.importorskip('counter').counted
    monkeypatch.setattr(criss_cross_gpu, 'axis_engine', lambda *args: ENGINE)
    for module, function in (
        (linear, 'linear_attention'),
        (linear, 'channel_linear_attention'),
        (efficient, 'efficient_attention'),
    ):
        monkeypatch.setattr(
            module, function, lambda *qkv, **options: Nothing.apply(*qkv)
        )
    layer = getattr(layers, name)(512).to('meta', HALF)
    x = torch.empty(2, 512, 97, 97, dtype=HALF, device='meta')
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    x.requires_grad_()
    with counted() as there:
        y = layer(x)
    with counted() as back:
        inputs = [x, *layer.parameters()]
        torch.autograd.grad(y, inputs, torch.empty_like(y))
    assert forward / 2 < there.bytes / x.nbytes <= forward
    assert backward / 2 < back.bytes / x.nbytes <= backward
