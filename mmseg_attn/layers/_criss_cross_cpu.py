# Copyright (c) mmseg_attn contributors.
"""The whole criss-cross layer as one step for autograd, on the CPU.

On a CPU a fresh tensor of the map's size costs about as much as a pass over
it, and the layer, written as separate steps, makes a dozen of them. Here the
map is transposed and projected in chunks of pixels, of its tensors the
attention's inputs and output alone are kept, and the gradient's memory serves
as scratch first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops._axis import attend, attend_backward, dots
from ..ops._matmul import mm
from ._layout import transpose_into

# Pixels projected at once; 2048 to 4096 were the fastest of 2048 .. 8192.
_CHUNK = 2048


def can_fuse(x: Tensor) -> bool:
    """Whether this map can take the fused path."""
    return (
        x.device.type == 'cpu'
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled('cpu')
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


class FusedCrissCross(torch.autograd.Function):
    """x + attention of the projections of x, (B, C, *spatial)."""

    @staticmethod
    @torch.autocast('cpu', enabled=False)
    def forward(ctx, x, *parameters):
        if not x.movedim(1, -1).is_contiguous():
            x = x.contiguous()
        weights, biases = parameters[::2], parameters[1::2]
        sizes = [len(w) for w in weights]
        weight = torch.cat([w.flatten(1) for w in weights])
        bias = torch.cat(biases)
        axes = range(x.ndim - 2)
        qkv = x.new_empty(len(x), *x.shape[2:], 1, len(weight))
        lse = x.new_empty(*qkv.shape[:-1], 1)
        y = torch.empty_like(x)
        kept = []
        for some in _groups(x):
            source, target = x[some].flatten(2), qkv[some].flatten(1, -2)
            for part in _chunks(source):
                rows = mm(_pixels(source, part), weight.t())
                out = target[:, part]
                torch.add(rows.view(out.shape), bias, out=out)
            out, lse[some] = attend(*qkv[some].split(sizes, -1), axes, 1.0)
            transpose_into(y[some].flatten(2), out.flatten(1, -2))
            kept.append(out)
        y.add_(x)
        # Not y, which others may change in place; nor y - x for out, which
        # would be lost to rounding while gamma is small.
        ctx.save_for_backward(x, qkv, lse, weight, *kept)
        ctx.sizes, ctx.shapes = sizes, [p.shape for p in parameters]
        return y

    @staticmethod
    @torch.autocast('cpu', enabled=False)
    def backward(ctx, grad):
        if torch.is_grad_enabled():
            raise RuntimeError(
                'the criss-cross layer is differentiable once on the CPU, '
                'but its gradient was asked for with create_graph=True: '
                "use backend='reference'"
            )
        x, qkv, lse, weight, *kept = ctx.saved_tensors
        sizes = ctx.sizes
        axes = range(x.ndim - 2)
        grad_x = torch.empty_like(x)
        grad_weight, grad_bias = [], []
        for some, out in zip(_groups(x), kept, strict=True):
            source, g, gx = (t[some].flatten(2) for t in (x, grad, grad_x))
            # The gradient, pixel by pixel, in the memory of grad_x.
            last = gx.transpose(1, 2)
            if not last.is_contiguous():
                last = gx.view(last.shape)
            transpose_into(last, g)
            qkv_here = qkv[some]
            last = last.view(out.shape)
            grad_qkv = torch.empty_like(qkv_here)
            attend_backward(
                last,
                *qkv_here.split(sizes, -1),
                dots(last, out),
                lse[some],
                axes,
                1.0,
                grad_qkv.split(sizes, -1),
            )
            grad_rows = grad_qkv.flatten(1, -2)
            for part in _chunks(source):
                rows = grad_rows[:, part].flatten(0, 1)
                _add(grad_weight, mm(rows.t(), _pixels(source, part)))
                _add(grad_bias, rows.sum(0))
                own = mm(rows, weight).view(len(g), -1, x.shape[1])
                torch.add(own.mT, g[..., part], out=gx[..., part])
        parts = zip(
            grad_weight[0].split(sizes), grad_bias[0].split(sizes), strict=True
        )
        flat = [g for pair in parts for g in pair]
        shaped = zip(flat, ctx.shapes, strict=True)
        return grad_x, *(g.view(shape) for g, shape in shaped)


def _add(total: list, part: Tensor) -> None:
    """Add to the one tensor in a list, without a first one of zeros."""
    total[:] = [total[0].add_(part) if total else part]


def _groups(x):
    """Slices of as many pictures as make a chunk, at least of one."""
    step = max(1, _CHUNK // x[0, 0].numel())
    return [slice(i, i + step) for i in range(0, len(x), step)]


def _chunks(maps):
    """Slices of the pixels of (pictures, C, pixels)."""
    return [slice(i, i + _CHUNK) for i in range(0, maps.shape[2], _CHUNK)]


def _pixels(maps, part):
    """(pictures, C, pixels) to contiguous (pictures * part, C)."""
    return maps[..., part].mT.contiguous().flatten(0, 1)
