# Copyright (c) mmseg_attn contributors.
"""Attention along one axis on a CPU: kept weights, lines as they lie."""

import pytest
import torch

from mmseg_attn.ops import axial_attention, channelized_axial_attention
from mmseg_attn.ops.core import lines

# (B, *spatial, heads), dim, value_dim, axis: the weights are kept where a
# line is at most a quarter of value_dim.
SHAPES = [
    ((1, 6, 5, 1), 3, 24, 0),  # kept
    ((1, 6, 5, 1), 3, 24, 1),
    ((2, 6, 5, 2), 3, 24, 0),
    ((2, 6, 5, 2), 3, 24, 1),
    ((3, 2, 4, 3, 2), 2, 16, 1),  # more lines before than behind the axis
    ((2, 7, 3, 1), 3, 27, 0),  # one channel too few: not kept
    ((1, 130, 3, 1), 4, 8, 0),  # longer than the value is wide
]
EACH = pytest.mark.parametrize('lead, dim, value_dim, axis', SHAPES)


def make(lead, dim, value_dim, dtype=torch.float64):
    torch.manual_seed(0)
    shapes = [(*lead, n) for n in (dim, dim, value_dim)]
    return [torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes]


def weight(inputs):
    return torch.linspace(-1, 1, inputs[-1].numel()).view_as(inputs[-1])


def results(inputs, axis, backend='torch'):
    out = axial_attention(*inputs, axis=axis, scale=0.7, backend=backend)
    given = weight(inputs).to(out)
    return out, *torch.autograd.grad(out, inputs, given)


def saved(function):
    """What a forward keeps for the backward."""
    tensors = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: tensors.append(x) or x, lambda x: x
    ):
        function()
    return tensors


@EACH
@pytest.mark.parametrize('block', [1, 300, 2**20])
def test_equals_the_reference(lead, dim, value_dim, axis, block, monkeypatch):
    """In float64, in one block, several, and one line a block."""
    monkeypatch.setattr(lines, '_BLOCK', block)
    inputs = make(lead, dim, value_dim)
    got = results(inputs, axis)
    expected = results(inputs, axis, 'reference')
    assert got[0].is_contiguous()
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@EACH
def test_what_is_kept(lead, dim, value_dim, axis):
    """The inputs, and weights of at most a quarter of the value."""
    inputs = make(lead, dim, value_dim)
    length = lead[1 + axis]
    kept = saved(lambda: axial_attention(*inputs, axis=axis))
    assert all(a is b for a, b in zip(kept, inputs, strict=False))
    extra = sum(x.numel() for x in kept[3:])
    short = 4 * length <= value_dim
    assert extra == short * inputs[0][..., 0].numel() * length
    assert 4 * extra <= inputs[2].numel()


def test_nothing_is_kept_without_a_backward(monkeypatch):
    inputs = make(*SHAPES[0][:3])
    kept = []

    def attend(*tensors, **options):
        out, weights = of_lines(*tensors, **options)
        kept.extend(weights)
        return out, weights

    of_lines = lines.attend
    monkeypatch.setattr(lines, 'attend', attend)
    with torch.no_grad():
        axial_attention(*inputs, axis=0)
    assert not kept
    axial_attention(*inputs, axis=0)
    assert kept


@EACH
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_narrow_floats_are_summed_in_fp32(lead, dim, value_dim, axis, dtype):
    """What is rounded is the inputs and the results."""
    inputs = make(lead, dim, value_dim, dtype)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    expected = results(exact, axis, 'reference')
    for a, b in zip(results(inputs, axis), expected, strict=True):
        assert a.dtype == dtype
        limit = 1.01 * torch.finfo(dtype).eps * b.abs().max()
        assert (a.double() - b).abs().max() <= limit


@pytest.mark.parametrize('case', [SHAPES[0], SHAPES[5]], ids=['kept', 'not'])
def test_a_kept_graph_gives_the_same_again(case):
    *shape, axis = case
    inputs = make(*shape)
    out = axial_attention(*inputs, axis=axis)
    given = weight(inputs).double()
    first = torch.autograd.grad(out, inputs, given, retain_graph=True)
    again = torch.autograd.grad(out, inputs, given)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize('changed', range(3))
def test_a_changed_input_is_noticed(changed):
    inputs = make(*SHAPES[0][:3])
    out = axial_attention(*inputs, axis=0)
    with torch.no_grad():
        inputs[changed].add_(1)
    with pytest.raises(RuntimeError, match='modified by an inplace'):
        out.sum().backward()


@EACH
@pytest.mark.parametrize('alone', range(3))
def test_one_input_needs_a_gradient(lead, dim, value_dim, axis, alone):
    inputs = make(lead, dim, value_dim)
    expected = results(inputs, axis)[1 + alone]
    for i, x in enumerate(inputs):
        x.requires_grad_(i == alone)
    out = axial_attention(*inputs, axis=axis, scale=0.7)
    out.backward(weight(inputs).double())
    grads = [x.grad for x in inputs]
    assert torch.equal(grads.pop(alone), expected) and grads == [None, None]


def test_short_lines_are_not_copied(monkeypatch):
    """The BLAS is given views of the maps themselves."""
    inputs = make((1, 6, 5, 1), 3, 24, torch.float32)
    given = []
    bmm = torch.bmm

    def spy(a, b, **kwargs):
        given.extend([a, b])
        return bmm(a, b, **kwargs)

    monkeypatch.setattr(torch, 'bmm', spy)
    results(inputs, 0)
    storages = {x.untyped_storage().data_ptr() for x in given}
    assert all(x.untyped_storage().data_ptr() in storages for x in inputs)


def gated(inputs, axis, gate, backend='torch'):
    return channelized_axial_attention(
        *inputs, gate, axis=axis, scale=0.7, backend=backend
    )


def mixing(pooled):
    return torch.sigmoid(3 * pooled - pooled.sum(-1, keepdim=True))


def fixed(pooled):
    """Of each line and channel its own, whatever the pool."""
    return torch.linspace(-1, 1, pooled.numel()).view_as(pooled).to(pooled)


@EACH
@pytest.mark.parametrize('gate', [mixing, fixed])
def test_gated_equals_the_reference(lead, dim, value_dim, axis, gate):
    """In float64; from a kept graph, then in the attention's memory."""
    inputs = make(lead, dim, value_dim)
    given = weight(inputs).double()
    expected = gated(inputs, axis, gate, 'reference')
    truth = torch.autograd.grad(expected, inputs, given)
    out = gated(inputs, axis, gate)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    for kept in (True, True, False):
        got = torch.autograd.grad(out, inputs, given, retain_graph=kept)
        for a, b in zip(got, truth, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@EACH
def test_gradient_of_the_pool_alone(lead, dim, value_dim, axis):
    """A loss on what the gate is given, the output being unused."""
    inputs = make(lead, dim, value_dim)

    def grads(backend):
        pools = []
        gated(inputs, axis, lambda x: pools.append(x) or x, backend)
        return torch.autograd.grad(pools[0].square().sum(), inputs)

    for a, b in zip(grads('torch'), grads('reference'), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@EACH
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_gated_narrow_floats(lead, dim, value_dim, axis, dtype):
    """The error of gradients is at most 3 times the reference's own."""
    inputs = make(lead, dim, value_dim, dtype)
    exact = [x.detach().double().requires_grad_() for x in inputs]

    def grads(of, backend):
        out = gated(of, axis, mixing, backend)
        return torch.autograd.grad(out, of, weight(of).to(dtype).to(out))

    got, theirs = grads(inputs, 'torch'), grads(inputs, 'reference')
    for a, b, truth in zip(
        got, theirs, grads(exact, 'reference'), strict=True
    ):
        error, limit = ((x.double() - truth).abs().max() for x in (a, b))
        slack = torch.finfo(dtype).eps * truth.abs().max()
        assert error <= 3 * limit + slack
