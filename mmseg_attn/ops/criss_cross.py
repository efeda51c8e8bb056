# Copyright (c) mmseg_attn contributors.
"""Criss-cross attention: each position attends to its row and column."""

from __future__ import annotations

from torch import Tensor

from .core.axis import axis_backends
from .core.checks import check_qkv
from .core.reference import masked_attention, positions
from .declare import (
    Backend,
    Case,
    attention_flops,
    narrow_keys,
    register,
    select,
)


def criss_cross_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float = 1.0,
    backend: str | None = None,
) -> Tensor:
    """Attention of each position to all that differ from it in one axis.

    In 2D a position attends to its row and its column, in 3D to the
    T + H + W - 2 positions that share two of its three coordinates, and
    always to itself once.

    Args:
        query: (B, *spatial, heads, dim), with one or more spatial axes.
        key: (B, *spatial, heads, dim).
        value: (B, *spatial, heads, value_dim).
        scale: Factor of the scores before the softmax, a number (to learn
            it, multiply the query). CCNet uses none.
        backend: ``'triton'`` (CUDA) or ``'torch'`` (any device), which keep
            no affinity for the backward and are differentiable once,
            ``'reference'`` (dense attention with a mask, differentiable any
            number of times; memory grows with the square of the positions)
            or None for the best that can run.

    Returns:
        (B, *spatial, heads, value_dim), in the dtype of the inputs. The
        softmax and all sums of fp16 and bf16 inputs are in fp32.

    Raises:
        TypeError: Inputs are not tensors of one floating point dtype.
        ValueError: Shapes that do not fit, or an unknown backend.
        RuntimeError: The named backend cannot run here.

    Examples:
        >>> import torch
        >>> from mmseg_attn.ops import criss_cross_attention
        >>> query, key = torch.randn(2, 1, 32, 48, 1, 8)
        >>> value = torch.randn(1, 32, 48, 1, 64)
        >>> criss_cross_attention(query, key, value).shape
        torch.Size([1, 32, 48, 1, 64])

    CCNet, https://arxiv.org/abs/1811.11721, equations 1 and 2.
    """
    check_qkv('criss_cross_attention', query, key, value, scale)
    run = select('criss_cross_attention', backend, query, key, value)
    return run(query, key, value, scale)


def _reference(query, key, value, scale):
    grid = positions(query)
    differs = (grid[:, None] != grid[None]).sum(-1)
    return masked_attention(query, key, value, differs <= 1, scale)


def _all_axes(query):
    return list(range(query.ndim - 3))


def _flops(case):
    keys = sum(case.spatial) - len(case.spatial) + 1
    return attention_flops(case, keys)


register(
    function=criss_cross_attention,
    paper='CCNet, https://arxiv.org/abs/1811.11721',
    backends=dict(**axis_backends(_all_axes), reference=Backend(_reference)),
    cases=(
        Case((4, 7), heads=2, options=dict(scale=0.7)),
        Case((7,)),
        Case((1, 6)),
        Case((5, 1)),
        Case((3, 2, 4), heads=2, batch=1),
        Case((33, 17), dim=16, value_dim=24),
    ),
    benchmark=narrow_keys,
    flops=_flops,
)
