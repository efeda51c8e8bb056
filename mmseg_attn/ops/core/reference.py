# Copyright (c) mmseg_attn contributors.
"""The dense attention that every sparse pattern is a mask of."""

from __future__ import annotations

import torch
from torch import Tensor

from .autograd import widen


def positions(x: Tensor) -> Tensor:
    """Coordinates (n, axes) of the positions of (B, *spatial, heads, dim)."""
    spatial = x.shape[1:-2]
    grid = [torch.arange(n, device=x.device) for n in spatial]
    return torch.cartesian_prod(*grid).view(-1, len(spatial))


def by_heads(x: Tensor) -> Tensor:
    """(B, *spatial, heads, dim) to (B, heads, n, dim), at least in fp32."""
    return widen(x.flatten(1, -3).transpose(1, 2))


def like_query(out: Tensor, query: Tensor) -> Tensor:
    """(B, heads, n, dim) to (B, *spatial, heads, dim), in query's dtype."""
    shape = (*query.shape[:-1], out.shape[-1])
    return out.transpose(1, 2).reshape(shape).to(query.dtype)


def masked_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float,
) -> Tensor:
    """Attention of each query to the keys that a mask allows.

    ``softmax(scale * query key^T) value``.

    Args:
        query, key, value: (B, *spatial, heads, dim).
        mask: (n, n), True where a query (row) attends to a key (column).
            None allows all.
        scale: Factor of the scores.
    """
    q, k, v = map(by_heads, (query, key, value))
    scores = scale * q @ k.mT
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return like_query(scores.softmax(-1) @ v, query)
