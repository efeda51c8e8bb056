# Copyright (c) mmseg_attn contributors.
"""The whole criss-cross layer as one step for autograd, on the CPU.

On a CPU a fresh tensor of the map's size costs about as much as a pass over
it, and the layer, written as separate steps, makes a dozen of them. Here the
map is transposed and projected in chunks of pixels, of its tensors the
attention's inputs and output alone are kept, and the backward writes over
them, and into the gradient's memory, as soon as they are needed no more.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops.core.autograd import (
    graph_is_kept,
    is_traced,
    refuse_double_backward,
)
from ..ops.core.axis import attend, attend_backward
from ..ops.core.matmul import add_to, mm
from .layout import transpose_into

# Pixels projected at once; 512 was the fastest, and smallest, of 256 .. 8192.
_CHUNK = 512


def can_fuse(x: Tensor) -> bool:
    """Whether this map can take the fused path."""
    return (
        x.device.type == 'cpu'
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled('cpu')
        and not is_traced()
    )


class FusedCrissCross(torch.autograd.Function):
    """x + gamma * attention of the projections of x, (B, C, *spatial).

    ``apply(x, gamma, axes, query's weight, bias, key's, value's)``.
    """

    @staticmethod
    @torch.autocast('cpu', enabled=False)
    def forward(ctx, x, gamma, axes, *projections):
        if not x.movedim(1, -1).is_contiguous():
            x = x.contiguous()
        ctx.axes = axes
        pairs = _pairs(*projections)
        # Query and key side by side, and the value.
        qk, v = (
            x.new_empty(len(x), *x.shape[2:], 1, len(weight))
            for weight, _ in pairs
        )
        lse = x.new_empty(*v.shape[:-1], 1)
        y = torch.empty_like(x)
        kept = []
        for some in _groups(x):
            source = x[some].flatten(2)
            for part in _chunks(source):
                pixels = _pixels(source, part)
                for target, (weight, bias) in zip((qk, v), pairs, strict=True):
                    target = target[some].flatten(1, -2)[:, part]
                    rows = mm(pixels, weight.t()).view(target.shape)
                    torch.add(rows, bias, out=target)
            q, k = qk[some].chunk(2, -1)
            out, lse[some] = attend(q, k, v[some], axes=axes, scale=1.0)
            transpose_into(y[some].flatten(2), out.flatten(1, -2))
            kept.append(out)
        torch.add(x, y, alpha=gamma.item(), out=y)
        # Not y, which others may change in place; nor (y - x) / gamma for
        # out, which would be lost to rounding while gamma is small.
        ctx.save_for_backward(x, gamma, *projections, qk, v, lse, *kept)
        return y

    @staticmethod
    @torch.autocast('cpu', enabled=False)
    def backward(ctx, grad):
        refuse_double_backward()
        saved = ctx.saved_tensors  # once: checkpointing hands them out once
        x, gamma, *projections = saved[:8]
        qk, v, lse, *kept = saved[8:]
        if graph_is_kept():
            v, *kept = (t.clone() for t in (v, *kept))
        pairs = _pairs(*projections)
        grad_x = torch.empty_like(x)
        grads = [[None, None] for _ in pairs]
        grad_gamma = torch.zeros_like(gamma)
        for some, g in zip(_groups(x), kept, strict=True):
            source, target, incoming = (
                t[some].flatten(2) for t in (x, grad_x, grad)
            )
            # g holds the attention's output, then, as it is needed no more,
            # the gradient pixel by pixel. In the same way the value's
            # gradient takes the place of the value.
            delta = torch.empty_like(lse[some])
            for part in _chunks(source):
                pixels = _pixels(incoming, part)
                here = g.flatten(1, -2)[:, part]
                pixels = pixels.view(here.shape)
                sums = here.mul_(pixels).sum(-1, keepdim=True)
                delta.flatten(1, -2)[:, part] = sums
                here.copy_(pixels)
            grad_gamma += delta.sum()
            q, k = qk[some].chunk(2, -1)
            rows_qk = _in_memory_of(grad_x[some], qk[some])
            given = (g, q, k, v[some], delta, lse[some])
            along = dict(axes=ctx.axes, scale=1.0)
            attend_backward(*given, **along, out=(*rows_qk.chunk(2, -1), None))
            attend_backward(*given, **along, out=(None, None, v[some]))
            rows_qk = _in_memory_of(g, rows_qk).copy_(rows_qk)
            for part in _chunks(source):
                pixels = _pixels(source, part)
                own = None
                for rows, pair, sums in zip(
                    (v[some], rows_qk), pairs[::-1], grads[::-1], strict=True
                ):
                    rows = rows.flatten(1, -2)[:, part].mul_(gamma)
                    rows = rows.flatten(0, 1)
                    sums[0] = add_to(sums[0], mm(rows.t(), pixels))
                    sums[1] = add_to(sums[1], rows.sum(0))
                    own = add_to(own, mm(rows, pair[0]))
                own = own.view(len(incoming), -1, x.shape[1])
                torch.add(own.mT, incoming[..., part], out=target[..., part])
        (both, both_bias), last = grads
        flat = *zip(both.chunk(2), both_bias.chunk(2), strict=True), last
        grads = (g for pair in flat for g in pair)
        return (
            grad_x,
            grad_gamma,
            None,
            *(
                g.view(p.shape)
                for g, p in zip(grads, projections, strict=True)
            ),
        )


def _pairs(*projections):
    """Weight (D, C) and bias of query and key in one, and of the value."""
    query, query_bias, key, key_bias, value, value_bias = projections
    return (
        (
            torch.cat([query, key]).flatten(1),
            torch.cat([query_bias, key_bias]),
        ),
        (value.flatten(1), value_bias),
    )


def _in_memory_of(spare, like):
    """An empty tensor like another, in memory that is needed no more."""
    if spare.numel() < like.numel():
        return torch.empty_like(like)
    return spare.as_strided(like.shape, like.stride(), spare.storage_offset())


def _groups(x):
    """Slices of as many pictures as make a chunk, at least of one."""
    step = max(1, _CHUNK // x[0, 0].numel())
    return [slice(i, i + step) for i in range(0, len(x), step)]


def _chunks(maps):
    """Slices of the pixels of (pictures, C, pixels)."""
    return [slice(i, i + _CHUNK) for i in range(0, maps.shape[2], _CHUNK)]


def _pixels(maps, part):
    """(pictures, C, pixels) to contiguous (pictures * part, C)."""
    some = maps[..., part]
    rows = some.mT
    if not rows.is_contiguous():
        # A contiguous matrix first: the fast transposing copy needs one.
        rows = transpose_into(some.new_empty(rows.shape), some.contiguous())
    return rows.flatten(0, 1)
