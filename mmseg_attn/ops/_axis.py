# Copyright (c) mmseg_attn contributors.
"""Softmax attention over lines of a grid, merged over several axes.

The softmax over the union of several axes' keys is the merge of the axes' own
softmaxes by their log-sum-exp (lse). With the scores s of a query along axis
a and l_a = lse(s),

    lse = logaddexp over a of l_a,
    out = sum over a of exp(l_a - lse) * softmax(s) @ value.

The backward gives every axis the *joint* out and lse, so that each axis' own
backward adds up to the exact gradient:

    p = exp(s - lse),   dvalue += p^T @ g,
    ds = p * (g @ value^T - <g, out>),
    dquery += scale * ds @ key,   dkey += scale * ds^T @ query.

Scores are recomputed in the backward: no affinity outlives its block of
lines. A block is small enough to stay in the processor's cache, where its
lines are made contiguous for the matrix products; the results are written
through strided views.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ._matmul import bmm, bmm_into

# Elements of scores and values in one block. On a CPU 2**19 and 2**20 (2 and
# 4 MiB of fp32) were the fastest of 2**17 .. 2**23; a GPU wants few large
# launches instead.
_CPU_BLOCK = 2**19
_GPU_BLOCK = 2**26


def _blocks(axis: int, *tensors: Tensor | None) -> Iterator[list]:
    """Yield views (groups, lines, length, dim) of lines along an axis.

    The tensors are (B, *spatial, heads, dim) and contiguous but for the
    last axis' padding. Being views, the blocks can be written to. None stays
    None.
    """
    shape = tensors[0].shape
    length = shape[1 + axis]
    before = shape[: 1 + axis].numel()
    after = shape[2 + axis : -1].numel()
    # A line has an index before the axis and one after it. A block takes
    # lines of the longer one, and of several of the other if the map is small.
    swap = before > after
    grids = []
    for x in tensors:
        if x is not None:
            x = x.view(before, length, after, x.shape[-1])
            x = x.transpose(0, 2) if swap else x
        grids.append(x)
    outer, inner = sorted((before, after))
    limit = _CPU_BLOCK if tensors[0].device.type == 'cpu' else _GPU_BLOCK
    width = max(x.shape[-1] for x in tensors if x is not None)
    step = max(1, limit // (length * (length + width)))
    groups = max(1, step // inner)
    for i in range(0, outer, groups):
        for j in range(0, inner, step):
            yield [
                g
                if g is None
                else g[i : i + groups, :, j : j + step].transpose(1, 2)
                for g in grids
            ]


def _lines(x):
    """A block as contiguous lines for the products, (lines, length, dim)."""
    return x if x is None else x.flatten(0, 1).contiguous()


def _scores(query, key, scale, exclude_self):
    scores = bmm(query, key.mT)
    if scale != 1.0:
        scores.mul_(scale)
    if exclude_self:
        scores.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    return scores


def _used_axes(axes, shape):
    """Axes to visit, and whether each leaves out the query's own position.

    The own position is counted with the first axis. The last spatial axis
    comes first because its lines are contiguous; later axes of length 1 hold
    nothing but the own position.
    """
    first, *others = sorted(axes, reverse=True)
    return [(first, False)] + [(a, True) for a in others if shape[1 + a] > 1]


def attend(
    query: Tensor, key: Tensor, value: Tensor, axes, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention of each position over its lines along the given axes.

    Args:
        query, key: (B, *spatial, heads, dim).
        value: (B, *spatial, heads, value_dim).
        axes: Spatial axes, counted from 0. The own position counts once.
        scale: Factor of the scores.

    Returns:
        The output, of value's shape, and the log-sum-exp of the scores,
        (B, *spatial, heads, 1).
    """
    out = torch.empty(value.shape, dtype=value.dtype, device=value.device)
    lse = out.new_empty(*out.shape[:-1], 1)
    for axis, exclude_self in _used_axes(axes, query.shape):
        for *qkv, o, joint in _blocks(axis, query, key, value, out, lse):
            q, k, v = map(_lines, qkv)
            s = _scores(q, k, scale, exclude_self)
            peak = s.amax(-1, keepdim=True)
            p = s.softmax(-1)
            # The largest weight is exp(peak - lse): no second exponential.
            own = peak.sub_(p.amax(-1, keepdim=True).log_())
            own = own.view(joint.shape)
            if not exclude_self:
                joint.copy_(own)
                bmm_into(o, p, v)
            else:
                # exp(own - joint), but the parts add up to 1 in any dtype.
                part = torch.sigmoid(own - joint)
                torch.logaddexp(joint, own, out=joint)
                o.mul_(1 - part)
                p.mul_(part.view(-1, part.shape[-2], 1))
                bmm_into(o, p, v, accumulate=True)
    return out, lse


def dots(a: Tensor, b: Tensor) -> Tensor:
    """Scalar products along the last axis, (..., 1), without a large a * b."""
    rows = zip(*(x.flatten(0, -2).split(1024) for x in (a, b)), strict=True)
    return torch.cat([(x * y).sum(-1) for x, y in rows]).view(*a.shape[:-1], 1)


def attend_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    delta: Tensor,
    lse: Tensor,
    axes,
    scale: float,
    out: tuple[Tensor | None, Tensor | None, Tensor | None],
) -> None:
    """Write the gradients of :func:`attend` for query, key and value to out.

    Args:
        delta: <grad, output of attend> at each position,
            (B, *spatial, heads, 1).
        out: Where to; None leaves a gradient out. That of value may be
            written over value once the other two are known.
    """
    for_scores = out[0] is not None or out[1] is not None
    tensors = (query, key, grad, lse, value if for_scores else None, delta)
    for axis, exclude_self in _used_axes(axes, query.shape):
        for *lines, dq, dk, dv in _blocks(axis, *tensors, *out):
            q, k, g, joint, v, d = map(_lines, lines)
            p = _scores(q, k, scale, exclude_self).sub_(joint).exp_()
            if dv is not None:
                bmm_into(dv, p.mT, g, accumulate=exclude_self)
            if not for_scores:
                continue
            ds = bmm(g, v.mT).sub_(d).mul_(p)
            if scale != 1.0:
                ds.mul_(scale)
            if dq is not None:
                bmm_into(dq, ds, k, accumulate=exclude_self)
            if dk is not None:
                bmm_into(dk, ds.mT, q, accumulate=exclude_self)
