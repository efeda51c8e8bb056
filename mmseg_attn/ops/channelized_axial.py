# Copyright (c) mmseg_attn contributors.
"""Channelized axial attention: axial attention with a gate per line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from .axial import axial_attention
from .core import device, lines
from .core.autograd import (
    backward,
    dots,
    forward,
    graph_is_kept,
    is_traced,
    pixel_rows,
    refuse_double_backward,
)
from .core.axis import axis_engine
from .core.checks import check_axis, check_qkv
from .core.matmul import accumulator, widen
from .declare import OPERATORS, register, select

# The attention that is gated.
_AXIAL = OPERATORS[axial_attention.__name__]
# Elements of a map in one block of lines, to stay in a CPU's cache.
_BLOCK = 2**18


def channelized_axial_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    channel_gate: Callable[[Tensor], Tensor],
    *,
    axis: int,
    scale: float = 1.0,
    backend: str | None = None,
) -> Tensor:
    """Axial attention whose summands are gated by channel.

    The paper gates each product of a weight and a value before summing them,
    by a gate that depends on the query's line and the channel but not on the
    summed position. So the gate leaves the sum: this is exactly axial
    attention times a gate per line, without the five-dimensional tensor and
    its grouped vectorization.

    Args:
        query: (B, *spatial, heads, dim), with one or more spatial axes.
        key: (B, *spatial, heads, dim).
        value: (B, *spatial, heads, value_dim).
        channel_gate: Maps the mean products of each line, (B, lines,
            channels), to gates of the same shape. ``lines`` is the length
            of the attended axis, ``channels`` are heads * value_dim. The
            mean is over the positions across the line and the summed ones:
            the mean output, divided by the length of the attended axis.
            Given and expected at least in fp32.
        axis: The attended axis, counted among the spatial axes: in 2D, 0
            attends along the height and gates rows, 1 along the width and
            gates columns.
        scale: Factor of the scores before the softmax, a number.
        backend: Backend of the attention: ``'triton'``, ``'torch'``,
            ``'reference'`` or None for the best that can run.

    Returns:
        (B, *spatial, heads, value_dim), in the dtype of the inputs.

    Raises:
        TypeError: Inputs are not tensors of one floating point dtype, or the
            gate is not callable.
        ValueError: Shapes that do not fit, no such axis, or an unknown
            backend.
        RuntimeError: The named backend cannot run here.

    Examples:
        >>> import torch
        >>> from mmseg_attn.ops import channelized_axial_attention
        >>> query, key = torch.randn(2, 1, 32, 48, 1, 8)
        >>> value = torch.randn(1, 32, 48, 1, 64)
        >>> gate = torch.nn.Sequential(
        ...     torch.nn.Linear(64, 64), torch.nn.Sigmoid()
        ... )
        >>> channelized_axial_attention(query, key, value, gate, axis=0).shape
        torch.Size([1, 32, 48, 1, 64])

    Channelized Axial Attention, https://arxiv.org/abs/2101.07434, and the
    author's code, which pools with the mean over both axes.
    """
    name = 'channelized_axial_attention'
    check_qkv(name, query, key, value, scale)
    axis = check_axis(name, axis, query)
    if not callable(channel_gate):
        raise TypeError(
            f'{name}: channel_gate must be callable, got '
            f'{type(channel_gate).__name__}'
        )
    run = select(name, backend, query, key, value)
    return run(query, key, value, scale, axis, channel_gate)


def _checked_gate(channel_gate, pooled):
    gate = channel_gate(pooled)
    got = tuple(gate.shape) if isinstance(gate, Tensor) else type(gate)
    if got != tuple(pooled.shape):
        raise ValueError(
            'channelized_axial_attention: channel_gate must return a tensor '
            f'of the shape (B, lines, channels) = {tuple(pooled.shape)} that '
            f'it is given, got {got}'
        )
    return gate


def _lines(x, axis):
    """View (B, *spatial, heads, dim) as (B, lines, *across, heads, dim)."""
    return x.movedim(1 + axis, 1)


def _pool(attended, axis):
    """Mean over all across each line, divided by the line's length."""
    rows = _lines(attended, axis)
    grouped = rows.reshape(*rows.shape[:2], -1, *rows.shape[-2:])
    pooled = grouped.mean(2, dtype=accumulator(rows.dtype))
    return pooled.flatten(2) / rows.shape[1]


def _beside(gate, attended):
    """A gate (B, lines, channels) to multiply lines, (B, lines, 1s, h, d)."""
    across = attended.ndim - 4
    heads_dim = attended.shape[-2:]
    return gate.view(*gate.shape[:2], *[1] * across, *heads_dim)


def _multiply(attended, gate, axis):
    factor = _beside(gate, attended).movedim(1, 1 + axis)
    return attended * factor.to(attended.dtype)


def _plain(attend):
    """Attention, then the gate; for tracers and double gradients."""

    def run(query, key, value, scale, axis, channel_gate):
        attended = attend(query, key, value, scale, axis)
        gate = _checked_gate(channel_gate, _pool(attended, axis))
        return _multiply(attended, gate, axis)

    return run


class _Attend(torch.autograd.Function):
    """(query, key, value, engine, axis, shared) -> (attention, its pool).

    The gradient that it is given for the attention is that of the *gated*
    attention, and :class:`_Gate`, whose backward comes before, has put the
    gate into ``shared``: so the gate's part of the backward is one step.
    """

    @staticmethod
    def forward(ctx, query, key, value, engine, axis, shared):
        qkv = [pixel_rows(x) for x in (query, key, value)]
        out, lse = forward(engine, *qkv)
        ctx.save_for_backward(*qkv, out, lse)
        ctx.engine, ctx.axis, ctx.shared = engine, axis, shared
        ctx.set_materialize_grads(False)
        return out, _pool(out, axis)

    @staticmethod
    def backward(ctx, grad, of_pool):
        refuse_double_backward()
        *qkv, out, lse = ctx.saved_tensors
        gate = ctx.shared.pop('gate', None)
        whole = torch.empty_like(out)
        _write_gradient(whole, grad, gate, of_pool, ctx.axis)
        given = whole, *qkv, dots(whole, out), lse
        grads = backward(ctx.engine, *given, ctx.needs_input_grad[:3])
        return *grads, None, None, None


class _Gate(torch.autograd.Function):
    """attention * gate; leaves the attention's gradient to _Attend."""

    @staticmethod
    def forward(ctx, attended, gate, axis, shared):
        ctx.save_for_backward(attended, gate)
        ctx.axis, ctx.shared = axis, shared
        return _multiply(attended, gate, axis)

    @staticmethod
    def backward(ctx, grad):
        refuse_double_backward()
        attended, gate = ctx.saved_tensors
        # Detached, and only now: else it would hold the graph that holds it.
        ctx.shared['gate'] = gate.detach().to(attended.dtype)
        sums = _sums_of_lines if device.on_gpu(grad) else _sums_in_blocks
        return grad, sums(attended, grad, ctx.axis), None, None


def _sums_of_lines(a, b, axis):
    """Products of two maps summed across each line, (B, lines, channels)."""
    wide = accumulator(a.dtype)
    # In fp16 products of a scaled gradient may be out of range.
    dtype = wide if a.dtype == torch.float16 else a.dtype
    products = torch.empty_like(a, dtype=dtype)
    torch.addcmul(a.new_zeros(1, dtype=wide), a, b, out=products)
    rows = _lines(products, axis).flatten(-2)
    across = rows.reshape(*rows.shape[:2], -1, rows.shape[-1])
    return across.sum(2, dtype=wide)


def _sums_in_blocks(a, b, axis):
    """The same in the cache."""
    channels = a.shape[-2:].numel()
    sums = [
        (widen(y) * x).reshape(len(y), -1, channels).sum(1)
        for x, y in _blocks(axis, a, b)
    ]
    return torch.cat(sums).view(len(a), -1, channels)


def _blocks(axis, *maps):
    """Yield views of some lines of maps."""
    maps = [_lines(x, axis) for x in maps]
    batch, length = maps[0].shape[:2]
    step = max(1, _BLOCK * batch * length // maps[0].numel())
    for b in range(batch):
        for i in range(0, length, step):
            yield [x[b, i : i + step] for x in maps]


class _AttendLines(torch.autograd.Function):
    """:class:`_Attend` by torch on a CPU, without products with the output.

    So the gradient of the attention may be written over the attention.
    """

    @staticmethod
    def forward(ctx, query, key, value, axis, scale, keep, shared):
        qkv = [pixel_rows(x) for x in (query, key, value)]
        out, kept = lines.attend(*qkv, axis=axis, scale=scale, keep=keep)
        ctx.save_for_backward(*qkv, out, *kept)
        ctx.axis, ctx.scale, ctx.shared = axis, scale, shared
        ctx.set_materialize_grads(False)
        return out, _pool(out, axis)

    @staticmethod
    def backward(ctx, grad, of_pool):
        refuse_double_backward()
        query, key, value, out, *kept = ctx.saved_tensors
        gate = ctx.shared.pop('gate', None)
        dtype = accumulator(out.dtype)
        reuse = grad is not None and out.dtype == dtype and not graph_is_kept()
        whole = out if reuse else torch.empty_like(out, dtype=dtype)
        _write_gradient(whole, grad, gate, of_pool, ctx.axis)
        grads = lines.attend_backward(
            *(whole, query, key, value, kept),
            axis=ctx.axis,
            scale=ctx.scale,
            needed=ctx.needs_input_grad[:3],
        )
        return *grads, None, None, None, None


def _write_gradient(whole, grad, gate, of_pool, axis):
    """Write the attention's gradient to ``whole``.

    From those of the gated attention and the pool, of which one may be None.
    """

    def over_map(per_line):
        return _beside(widen(per_line), whole).movedim(1, 1 + axis)

    if of_pool is None:
        torch.mul(grad, over_map(gate), out=whole)
        return
    # Each position's share in the mean that _pool takes.
    count = whole.numel() / of_pool.numel() * of_pool.shape[1]
    mean = over_map(of_pool / count)
    if grad is None:
        whole.copy_(mean.expand_as(whole))
    else:
        torch.addcmul(mean, grad, over_map(gate), out=whole)


def _in_blocks(name, plain):
    """The same with the backward in blocks; tracers see the plain steps."""

    def run(query, key, value, scale, axis, channel_gate):
        if is_traced():
            return plain(query, key, value, scale, axis, channel_gate)
        shared = {}
        if name == 'torch' and not device.on_gpu(query):
            keep = torch.is_grad_enabled()
            attended, pooled = _AttendLines.apply(
                query, key, value, axis, scale, keep, shared
            )
        else:
            engine = axis_engine([axis], scale, name)
            attended, pooled = _Attend.apply(
                query, key, value, engine, axis, shared
            )
        gate = _checked_gate(channel_gate, pooled)
        return _Gate.apply(attended, gate, axis, shared)

    return run


def _gated(name, backend):
    plain = _plain(backend.run)
    if name == 'reference':
        return replace(backend, run=plain)
    default = backend.default and _in_blocks(
        'triton or torch', _plain(backend.default)
    )
    return replace(backend, run=_in_blocks(name, plain), default=default)


def _gate_of_tests(pooled):
    """Some gate that mixes the channels of a line."""
    return torch.sigmoid(3 * pooled - pooled.sum(-1, keepdim=True))


def _with_gate(case):
    options = {**case.options, 'channel_gate': _gate_of_tests}
    return replace(case, options=options)


register(
    function=channelized_axial_attention,
    paper='Channelized Axial Attention, https://arxiv.org/abs/2101.07434',
    backends={n: _gated(n, b) for n, b in _AXIAL.backends.items()},
    cases=tuple(map(_with_gate, _AXIAL.cases)),
    benchmark=lambda *sizes: _with_gate(_AXIAL.benchmark(*sizes)),
    flops=_AXIAL.flops,
)
