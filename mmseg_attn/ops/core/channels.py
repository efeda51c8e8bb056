# Copyright (c) mmseg_attn contributors.
"""Linear attention between the channels of a map, in few passes over it.

X is the map, (n, C), of one picture and head. Sums over all its positions end
up in matrices (C, C), which are fp32 and take the denominators, so that the
output is written once. Only X and these are kept for the backward. On a GPU
all maps stay in X's dtype; on a CPU narrow floats are made fp32 first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import device
from .autograd import dots, no_autocast, refuse_double_backward
from .features import MIN_NORM
from .matmul import (
    accumulator,
    bmm,
    bmm_into,
    matrices,
    operand,
    rows_times,
    widen,
    write_product,
)


def _given(x):
    return x if device.on_gpu(x) else widen(x)


def _sum(x, axis):
    return x.sum(axis, keepdim=True, dtype=accumulator(x.dtype))


def _times_vector(rows, vector):
    """(B, n, heads, C) times (B, heads, 1, C), as (B, n, heads, 1), wide."""
    column, factor = operand(vector.mT, rows.dtype)
    product = bmm(matrices(rows), column)
    return matrices(product if factor is None else product * factor)


class UnitPositions(torch.autograd.Function):
    """``apply(value, eps)`` on (B, n, heads, C): the authors' variant.

    With U the map with each position scaled to unit length, s the sums of the
    positions' channels and t those of U plus eps,

        A = U^T X,   d = n + U^T t,   out = (U A + s 1^T) / d.
    """

    @staticmethod
    def forward(ctx, value, eps):
        x = _given(value)
        lengths = torch.linalg.vector_norm(
            x, dim=-1, keepdim=True, dtype=accumulator(x.dtype)
        ).clamp_min_(MIN_NORM)
        unit = torch.div(x, lengths, out=torch.empty_like(x))
        sums = _sum(x, -1)
        t = (sums / lengths).add_(eps).to(x.dtype)
        mixed = bmm(matrices(unit).mT, matrices(x))
        total = bmm(matrices(unit).mT, matrices(t)).mT + x.shape[1]
        out = torch.mul(sums, matrices(1 / total), out=x.new_empty(x.shape))
        narrow = (mixed / total).to(x.dtype)
        bmm_into(matrices(out), matrices(unit), narrow, accumulate=True)
        ctx.save_for_backward(value, lengths, sums, mixed, total)
        ctx.eps = eps
        return out.to(value.dtype)

    @staticmethod
    def backward(ctx, grad):
        refuse_double_backward()
        value, lengths, sums, mixed, total = ctx.saved_tensors
        with no_autocast(grad):
            dx = _unit_positions_backward(
                _given(grad),
                _given(value),
                lengths,
                sums,
                mixed,
                total,
                ctx.eps,
            )
        return dx.to(value.dtype), None


def _unit_positions_backward(grad, x, lengths, sums, mixed, total, eps):
    """The gradient of X.

    The part that comes through U is scaled and projected like it. With the
    gradient D of A and d of the denominators it is, but for what is constant
    in a row or a column, grad (A / d)^T + X D^T, and that of A's right factor
    is U D: of both the latter, since X is U scaled, U (D + D^T) is left.
    """
    channels = x.shape[-1]
    unit = torch.div(x, lengths, out=torch.empty_like(x))
    means = (sums / channels).to(x.dtype)
    of_mixed = bmm(matrices(unit).mT, matrices(grad))
    of_sums = channels * bmm(matrices(means).mT, matrices(grad))
    dtotal = (of_mixed * mixed).sum(-2, keepdim=True).add_(of_sums)
    dtotal = dtotal.div_(-(total**2))
    dmixed = of_mixed.div_(total)
    dx, factor = rows_times(unit, dmixed + dmixed.mT, x)
    if factor is not None:
        dx.mul_(factor)
    part, factor = rows_times(grad, mixed / total, x)
    inverse = 1 / lengths
    scale = inverse if factor is None else inverse * factor
    # Sums over a row's channels: of U, of U times the gradient of d.
    ones = sums * inverse
    tilt = _times_vector(unit, dtotal)
    along = dots(unit, part) * scale + dots(unit, dx) / 2
    along += inverse * tilt * (2 * ones + eps)
    along *= lengths > MIN_NORM
    dsums = _times_vector(grad, 1 / total)
    dx.addcmul_(part, scale).addcmul_(unit, along, value=-1)
    dx.addcmul_(inverse * (ones + eps), matrices(dtotal))
    return dx.add_(dsums.addcmul_(inverse, tilt))


class UnitChannels(torch.autograd.Function):
    """``apply(value, eps)`` on (B, n, heads, C): the corrected variant.

    With U the map with each channel scaled to unit length by 1 / j and M its
    products U^T U, which those of X tell,

        d = C + M 1 + eps * sum over n of U,   out = X (1 1^T + M) / d.
    """

    @staticmethod
    def forward(ctx, value, eps):
        x = _given(value)
        similar = bmm(matrices(x).mT, matrices(x))
        lengths = similar.diagonal(dim1=-2, dim2=-1).sqrt()
        inverse = 1 / lengths.clamp_min_(MIN_NORM).unsqueeze(-2)
        similar.mul_(inverse).mul_(inverse.mT)
        unit_sums = matrices(_sum(x, 1)) * inverse
        total = similar.sum(-2, keepdim=True) + eps * unit_sums
        total += x.shape[-1]
        out = x.new_empty(x.shape)
        narrow = ((1 + similar) / total).to(x.dtype)
        bmm_into(matrices(out), matrices(x), narrow)
        ctx.save_for_backward(value, similar, inverse, unit_sums, total)
        ctx.eps = eps
        return out.to(value.dtype)

    @staticmethod
    def backward(ctx, grad):
        refuse_double_backward()
        value, *saved = ctx.saved_tensors
        with no_autocast(grad):
            dx = _unit_channels_backward(
                _given(grad), _given(value), *saved, ctx.eps
            )
        return dx.to(value.dtype), None


def _unit_channels_backward(grad, x, similar, inverse, unit_sums, total, eps):
    weights = (1 + similar) / total
    dweights = bmm(matrices(x).mT, matrices(grad))
    dtotal = (dweights * weights).sum(-2, keepdim=True).div_(-total)
    dsimilar = dweights.div_(total).add_(dtotal.mT)
    products = dsimilar * similar
    # 1 / j scales a row and a column of M, and a sum.
    scaled = products.sum(-2, keepdim=True) + products.sum(-1)[..., None, :]
    scaled += eps * unit_sums * dtotal
    scaled *= inverse < 1 / MIN_NORM
    dproducts = dsimilar.mul_(inverse).mul_(inverse.mT)
    dproducts += dproducts.mT.clone()
    diagonal = dproducts.diagonal(dim1=-2, dim2=-1)
    diagonal -= (scaled * inverse**2).squeeze(-2)
    dx, factor = rows_times(grad, weights, x)
    if factor is not None:
        dx.mul_(factor)
    dproducts, factor = operand(dproducts, x.dtype)
    write_product(matrices(dx), matrices(x), dproducts, factor, True)
    return dx.add_(matrices(eps * inverse * dtotal))


def channel_attention(value: Tensor, official: bool, eps: float) -> Tensor:
    """Attention between the channels of (B, *spatial, heads, C)."""
    step = UnitPositions if official else UnitChannels
    with no_autocast(value):
        return step.apply(value.flatten(1, -3), eps).view(value.shape)
