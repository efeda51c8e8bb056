# Copyright (c) mmseg_attn contributors.
"""Channelized axial attention: axial attention with a gate per line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from . import axial  # noqa: F401  declares the attention that is gated
from ._autograd import accumulator
from ._checks import check_axis, check_qkv
from ._operators import OPERATORS, register, select


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
        backend: Of the attention: ``'triton'``, ``'torch'``,
            ``'reference'`` or None for the best that can run.

    Returns:
        (B, *spatial, heads, value_dim), in the dtype of the inputs.

    Raises:
        TypeError: Inputs are not tensors of one floating point dtype, or the
            gate is not callable.
        ValueError: Shapes that do not fit, no such axis, or an unknown
            backend.
        RuntimeError: The named backend cannot run here.

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


def _gated(attended, channel_gate, axis):
    # (B, lines, *across, heads, dim): a line's mean is over all across.
    lines = attended.movedim(1 + axis, 1)
    length = lines.shape[1]
    across = lines.ndim - 4
    grouped = lines.reshape(*lines.shape[:2], -1, *lines.shape[-2:])
    pooled = grouped.mean(2, dtype=accumulator(lines.dtype))
    pooled = pooled.flatten(2) / length
    gate = channel_gate(pooled)
    if gate.shape != pooled.shape:
        raise ValueError(
            'channelized_axial_attention: channel_gate must keep the shape '
            f'(B, lines, channels) = {tuple(pooled.shape)}, got '
            f'{tuple(gate.shape)}'
        )
    gate = gate.view(*gate.shape[:2], *[1] * across, *lines.shape[-2:])
    return attended * gate.movedim(1, 1 + axis).to(attended.dtype)


def _gate_of_tests(pooled):
    """Some gate that mixes the channels of a line."""
    return torch.sigmoid(3 * pooled - pooled.sum(-1, keepdim=True))


def _with_gate(backend):
    """Gate the output of a backend of axial attention.

    The gate is the caller's module: autograd, compilers and exporters see it
    as it is.
    """

    def run(query, key, value, scale, axis, channel_gate):
        attended = backend.run(query, key, value, scale, axis)
        return _gated(attended, channel_gate, axis)

    return replace(backend, run=run)


register(
    function=channelized_axial_attention,
    paper='Channelized Axial Attention, https://arxiv.org/abs/2101.07434',
    backends={
        name: _with_gate(backend)
        for name, backend in OPERATORS['axial_attention'].backends.items()
    },
    cases=tuple(
        replace(case, options={**case.options, 'channel_gate': _gate_of_tests})
        for case in OPERATORS['axial_attention'].cases
    ),
    benchmark=lambda *sizes: replace(
        OPERATORS['axial_attention'].benchmark(*sizes),
        options=dict(axis=0, channel_gate=_gate_of_tests),
    ),
    flops=OPERATORS['axial_attention'].flops,
)
