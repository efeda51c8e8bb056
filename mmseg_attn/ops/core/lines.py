# Copyright (c) mmseg_attn contributors.
"""Attention along one axis on a CPU.

The BLAS multiplies a batch of matrices with gaps between their rows, so the
lines of a grid are read as they lie. The weights of short lines, small beside
the value, are kept for the backward; those of longer lines are computed
again. With one axis there are no parts to merge: the backward is that of a
softmax between two products, and needs neither the output nor the
log-sum-exp.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .autograd import no_autocast, pixel_rows, refuse_double_backward
from .matmul import widen

# Elements of scores and values in one block of lines, 8 MiB of fp32. Smaller
# blocks make more steps for threads to wait in, larger ones leave the cache.
_BLOCK = 2**21
# Kept weights are at most so large a part of the value.
_KEPT = 1 / 4


def along(axis: int, x: Tensor) -> Tensor:
    """View (B, *spatial, heads, dim) as lines (m, n, length, dim), m <= n."""
    before, length = x.shape[: 1 + axis].numel(), x.shape[1 + axis]
    lines = x.view(before, length, -1, x.shape[-1])
    if before > lines.shape[2]:
        lines = lines.transpose(0, 2)
    return lines.transpose(1, 2)


def _empty_lines(axis, x):
    """Lines as of :func:`along`, one after the other, and their map."""
    lines = along(axis, x)
    lines = x.new_empty(lines.shape)
    map_ = lines.transpose(1, 2)
    if len(lines) != x.shape[: 1 + axis].numel():
        map_ = map_.transpose(0, 2)
    return lines, map_.view(x.shape)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    axis: int,
    scale: float,
    keep: bool = True,
) -> tuple[Tensor, list[Tensor]]:
    """Attention of each position over its line.

    Args:
        query, key: (B, *spatial, heads, dim), pixels being rows of a matrix.
        value: (B, *spatial, heads, value_dim).
        axis: Spatial axis, counted from 0.
        scale: Factor of the scores.
        keep: Whether there will be a backward.

    Returns:
        The output, of value's shape and dtype, and the weights to keep for
        the backward, of each block of lines (lines, length, length) in the
        dtype of the sums; of long lines an empty list.
    """
    out = torch.empty_like(value, memory_format=torch.contiguous_format)
    keep = keep and value.shape[1 + axis] <= _KEPT * value.shape[-1]
    kept = []
    with no_autocast(query):
        views = [along(axis, x) for x in (query, key, value, out)]
        for *qkv, target in _blocks(*views):
            q, k, v = map(_matrices, qkv)
            weights = _weights(q, k, scale)
            _write(target, weights, v)
            if keep:
                kept.append(weights)
    return out, kept


def attend_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kept: Sequence[Tensor],
    *,
    axis: int,
    scale: float,
    needed: Sequence[bool] = (True,) * 3,
) -> list[Tensor | None]:
    """Gradients of query, key and value, None where not needed.

    They lie in memory line after line, as the products write them.

    Args:
        grad: Gradient of the output, pixels being rows of a matrix.
        query, key, value, axis, scale: What :func:`attend` was given.
        kept: Weights that it returned.
        needed: Whether each of the three gradients is needed.
    """
    grads = [
        _empty_lines(axis, x) if needs else (None, None)
        for x, needs in zip((query, key, value), needed, strict=True)
    ]
    targets, maps = zip(*grads, strict=True)
    views = [along(axis, x) for x in (query, key, value, grad)]
    weights = iter(kept)
    with no_autocast(grad):
        for *block, dq, dk, dv in _blocks(*views, *targets):
            q, k, v, g = map(_matrices, block)
            p = next(weights) if kept else _weights(q, k, scale)
            if dv is not None:
                _write(dv, p.mT, g)
            if dq is None and dk is None:
                continue
            ds = torch.bmm(g, v.mT)
            # What torch's own softmax calls in its backward.
            ds = torch._softmax_backward_data(ds, p, -1, ds.dtype)
            if scale != 1.0:
                ds.mul_(scale)
            if dq is not None:
                _write(dq, ds, k)
            if dk is not None:
                _write(dk, ds.mT, q)
    return list(maps)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, axis, scale, keep):
        qkv = [pixel_rows(x) for x in (query, key, value)]
        out, kept = attend(*qkv, axis=axis, scale=scale, keep=keep)
        ctx.save_for_backward(*qkv, *kept)
        ctx.axis, ctx.scale = axis, scale
        return out

    @staticmethod
    def backward(ctx, grad):
        refuse_double_backward()
        query, key, value, *kept = ctx.saved_tensors
        grads = attend_backward(
            *(pixel_rows(grad), query, key, value, kept),
            axis=ctx.axis,
            scale=ctx.scale,
            needed=ctx.needs_input_grad[:3],
        )
        return *grads, None, None, None


def attention(
    query: Tensor, key: Tensor, value: Tensor, axis: int, scale: float
) -> Tensor:
    """:func:`attend` for autograd, of tensors of any strides."""
    keep = torch.is_grad_enabled()
    return _Attention.apply(query, key, value, axis, scale, keep)


def _blocks(*views: Tensor | None) -> Iterator[tuple]:
    """Yield views (i, j, length, dim) of some lines; None stays None."""
    rows, columns, length, _ = views[0].shape
    width = max(x.shape[-1] for x in views if x is not None)
    count = rows * columns * length * (length + width) / _BLOCK
    several = max(1, min(rows, math.ceil(count)))
    # Of equal size, for threads share the lines of a block.
    each = max(1, min(columns, math.ceil(count / several)))
    parts = (
        itertools.repeat(None)
        if x is None
        else (
            block
            for some in x.tensor_split(several)
            for block in some.tensor_split(each, 1)
        )
        for x in views
    )
    return zip(*parts, strict=False)


def _matrices(block):
    """(i, j, length, dim) as (i * j, length, dim), wide enough for sums."""
    return widen(block.flatten(0, 1))


def _weights(query, key, scale):
    scores = torch.bmm(query, key.mT)
    if scale != 1.0:
        scores.mul_(scale)
    return scores.softmax(-1)


def _write(target, a, b):
    """Write products (i * j, length, dim) to (i, j, length, dim)."""
    if target.is_contiguous() and target.dtype == a.dtype:
        torch.bmm(a, b, out=target.flatten(0, 1))
    else:
        target.copy_(torch.bmm(a, b).view(target.shape))
