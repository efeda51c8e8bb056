# Copyright (c) mmseg_attn contributors.
"""Axial attention: each position attends to its line along one axis."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from .core.axis import axis_backends
from .core.checks import check_axis, check_qkv
from .core.reference import masked_attention, positions
from .declare import (
    Backend,
    Case,
    attention_flops,
    narrow_keys,
    register,
    select,
)


def axial_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    axis: int,
    scale: float = 1.0,
    backend: str | None = None,
) -> Tensor:
    """Attention of each position to its line along one spatial axis.

    Args:
        query: (B, *spatial, heads, dim), with one or more spatial axes.
        key: (B, *spatial, heads, dim).
        value: (B, *spatial, heads, value_dim).
        axis: The attended axis, counted among the spatial axes: in 2D, 0
            attends along the height (within a column), 1 along the width
            (within a row).
        scale: Factor of the scores before the softmax, a number.
        backend: ``'triton'`` (CUDA) or ``'torch'`` (any device), which keep
            no affinity for the backward (torch on a CPU that of short lines,
            at most a quarter of the value) and are differentiable once,
            ``'reference'`` (dense attention with a mask) or None for the
            best that can run.

    Returns:
        (B, *spatial, heads, value_dim), in the dtype of the inputs. The
        softmax and all sums of fp16 and bf16 inputs are in fp32.

    Raises:
        TypeError: Inputs are not tensors of one floating point dtype.
        ValueError: Shapes that do not fit, no such axis, or an unknown
            backend.
        RuntimeError: The named backend cannot run here.

    Examples:
        >>> import torch
        >>> from mmseg_attn.ops import axial_attention
        >>> query, key = torch.randn(2, 1, 32, 48, 1, 8)
        >>> value = torch.randn(1, 32, 48, 1, 64)
        >>> axial_attention(query, key, value, axis=1).shape
        torch.Size([1, 32, 48, 1, 64])

    Channelized Axial Attention, https://arxiv.org/abs/2101.07434, the
    attention that it channelizes.
    """
    check_qkv('axial_attention', query, key, value, scale)
    axis = check_axis('axial_attention', axis, query)
    run = select('axial_attention', backend, query, key, value)
    return run(query, key, value, scale, axis)


def _reference(query, key, value, scale, axis):
    grid = positions(query)
    others = torch.arange(grid.shape[1], device=grid.device) != axis
    same_line = (grid[:, None] == grid[None])[..., others].all(-1)
    return masked_attention(query, key, value, same_line, scale)


register(
    function=axial_attention,
    paper='Channelized Axial Attention, https://arxiv.org/abs/2101.07434',
    backends=dict(
        **axis_backends(lambda query, axis: [axis]),
        reference=Backend(_reference),
    ),
    cases=(
        Case((4, 7), heads=2, options=dict(axis=0, scale=0.7)),
        Case((4, 7), options=dict(axis=1)),
        Case((7,), options=dict(axis=0)),
        Case((1, 6), options=dict(axis=0)),
        Case((3, 2, 4), heads=2, batch=1, options=dict(axis=1)),
        Case((33, 17), dim=16, value_dim=24, options=dict(axis=0)),
    ),
    benchmark=partial(narrow_keys, axis=0),
    flops=lambda case: attention_flops(
        case, case.spatial[case.options['axis']]
    ),
)
