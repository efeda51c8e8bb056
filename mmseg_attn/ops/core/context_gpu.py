# Copyright (c) mmseg_attn contributors.
"""Attention through a global context on a GPU: whole maps, few passes.

With the notation of :mod:`.context` the output is one product

    out = w G,   w = a / (a . s),

of weights w and the context G, both in the inputs' dtype; sums and
denominators are fp32, and the denominator enters w before the product writes
the output. So that fp16's range suffices, the features b of the keys are
scaled to a peak of 1 in each channel, and G and s to means over the positions:

* efficient attention: b = exp(key - max), G = (b^T v) / sum of b;
* linear attention: G = (b^T v) / n and s = (sum of b) / n if features are of
  both signs, else G = (b^T v) / (sum of b) and w = a s / (a . s).

w and b are kept for the backward, which are as wide as query and key.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .autograd import dots, no_autocast, refuse_double_backward
from .features import MIN_DENOMINATOR
from .matmul import (
    accumulator,
    bmm_into,
    matrices,
    over_positions,
    rows_times,
    widen,
)


class _Keys(NamedTuple):
    """What is known of the keys, with positions in the second axis.

    Args:
        features: b, (B, n, heads, features), as operand of products.
        factor: What b^T v is multiplied by to be the context,
            (B, heads, features, 1).
        sums: s, (B, 1, heads, features), if there is a denominator.
        peak: What the features were divided by, (B, 1, heads, features).
    """

    features: Tensor
    factor: Tensor
    sums: Tensor | None = None
    peak: Tensor | None = None


def _rows(x: Tensor) -> Tensor:
    """View (B, 1, heads, features) as (B, heads, features, 1)."""
    return x.permute(0, 2, 3, 1)


def _operand_like(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Empty, with rows that begin on 16 bytes, as fast products want them.

    Those with a channel of ones would not.
    """
    unit = 16 // dtype.itemsize
    missing = -x.shape[-1] % unit
    whole = x.new_empty(*x.shape[:-1], x.shape[-1] + missing, dtype=dtype)
    return whole[..., : x.shape[-1]]


def _narrow_like(x: Tensor, function, *args) -> Tensor:
    """An elementwise function in fp32, written in the dtype of x."""
    return function(*args, out=torch.empty_like(x))


def _keys(key, rule):
    if rule.over_positions:
        shift = widen(key.amax(1, keepdim=True))
        # The differences have 11 bits in 2 bytes; beyond their range exp is 0.
        narrow = key.dtype != shift.dtype
        dtype = torch.float16 if narrow else key.dtype
        below = torch.empty_like(key, dtype=dtype)
        b = _narrow_like(key, torch.exp, torch.sub(key, shift, out=below))
        total = b.sum(1, keepdim=True, dtype=shift.dtype)
        return _Keys(b, _rows(1 / total))
    if not rule.normalizes:
        return _Keys(key, _scalar(key, 1 / rule.divisor))
    b = rule.key.map(widen(key))
    if rule.cancels:
        count = b.shape[1]
        peak, factor = None, _scalar(b, 1 / count)
        if b.dtype != key.dtype:
            b = _operand_like(b, key.dtype).copy_(b)
        sums = b.sum(1, keepdim=True, dtype=factor.dtype) / count
        sums[..., : key.shape[-1]] += rule.eps / count
    else:
        peak = b.amax(1, keepdim=True).clamp_min_(MIN_DENOMINATOR)
        b = _narrow_like(key, torch.div, b, peak)
        sums = b.sum(1, keepdim=True, dtype=peak.dtype) * peak + rule.eps
        factor = _rows(peak / sums)
    return _Keys(b, factor, sums, peak)


def _scalar(x, number):
    return x.new_full((1, 1, 1, 1), number, dtype=accumulator(x.dtype))


def _floor(query, rule):
    """Below it, a denominator is nothing but rounding."""
    return torch.finfo(query.dtype).eps if rule.cancels else MIN_DENOMINATOR


def _weights(query, keys, rule):
    """w, in the dtype of query, and the denominator if there is one."""
    if not rule.normalizes:
        return rule.query.map(query), None
    a = rule.query.map(widen(query))
    terms = a * keys.sums
    total = terms.sum(-1, keepdim=True).clamp_min_(_floor(query, rule))
    terms = a if rule.cancels else terms
    w = _operand_like(a, query.dtype)
    return torch.div(terms, total, out=w), total


class WholeContext(torch.autograd.Function):
    """``apply(query, key, value, rule)`` on (B, n, heads, dim)."""

    @staticmethod
    def forward(ctx, query, key, value, rule):
        keys = _keys(key, rule)
        context = over_positions(keys.features, value)
        context = context.mul_(keys.factor)
        w, total = _weights(query, keys, rule)
        out = value.new_empty(*query.shape[:-1], value.shape[-1])
        bmm_into(matrices(out), matrices(w), context.to(value.dtype))
        if not rule.normalizes:  # its features tell all
            query = key = None
        ctx.save_for_backward(query, key, value, context, w, total, *keys)
        ctx.rule = rule
        return out

    @staticmethod
    def backward(ctx, grad):
        refuse_double_backward()
        query, key, value, context, w, total, *keys = ctx.saved_tensors
        rule, keys = ctx.rule, _Keys(*keys)
        with no_autocast(grad):
            dcontext = over_positions(w, grad)
            dsum = dcontext.mul_(keys.factor)  # the gradient of b^T v
            dvalue = value.new_empty(value.shape)
            narrow = dsum.to(value.dtype)
            bmm_into(matrices(dvalue), matrices(keys.features), narrow)
            if rule.normalizes:
                dquery, dsums = _query_backward(
                    grad, query, context, w, total, keys, rule
                )
                dkey = _key_backward(
                    key, value, context, dsum, dsums, keys, rule
                )
            else:
                dquery = _plain_query_backward(grad, context, w, rule)
                dkey = _plain_key_backward(value, context, dsum, keys, rule)
        return dquery, dkey, dvalue, None


def _along(context, dsum):
    """Sum over the value's channels, (B, 1, heads, features)."""
    return dots(dsum, context).permute(0, 3, 1, 2)


def _differing(context, rule):
    """Without what its rows share, if that has no part in a gradient.

    Else it might round off what they do not share. Of weights that vanish,
    and do not add up to 1, that part of the gradient is left out.
    """
    if not rule.is_mean:
        return context
    return context - context.mean(-2, keepdim=True)


def _plain_query_backward(grad, context, w, rule):
    dw, factor = rows_times(grad, _differing(context, rule), w)
    dquery = rule.query.backward(None, w, dw)
    return dquery if factor is None else dquery.mul_(factor)


def _query_backward(grad, query, context, w, total, keys, rule):
    """Gradients of query and of the keys' sums."""
    wide = accumulator(query.dtype)
    dw, factor = rows_times(grad, _differing(context, rule), w, wide)
    if factor is not None:
        dw.mul_(factor)
    # <grad, out>; a denominator at its floor has no gradient.
    delta = (w * dw).sum(-1, keepdim=True)
    delta *= total > _floor(query, rule)
    query = widen(query)
    a = rule.query.map(query)
    if rule.cancels:
        dtotal = delta.div_(-total)
        dsums = (dtotal * a).sum(1, keepdim=True)
        da = dw.div_(total).addcmul_(dtotal, keys.sums)
    else:  # of the terms a * s, of which w are the shares
        dterms = dw.sub_(delta).div_(total)
        dsums = (dterms * a).sum(1, keepdim=True)
        da = dterms.mul_(keys.sums)
    return rule.query.backward(query, a, da).to(grad.dtype), dsums


def _plain_key_backward(value, context, dsum, keys, rule):
    db, factor = rows_times(value, dsum, keys.features)
    if rule.over_positions:
        along = _along(context, dsum)
        if factor is not None:
            along = along / factor
        db.sub_(along).mul_(keys.features)
    return db if factor is None else db.mul_(factor)


def _key_backward(key, value, context, dsum, dsums, keys, rule):
    """Gradient of key, given those of b^T v and of the keys' sums."""
    wide = accumulator(key.dtype)
    db, factor = rows_times(value, dsum, keys.features, wide)
    if factor is not None:
        db.mul_(factor)
    if rule.cancels:
        db.add_(dsums, alpha=1 / key.shape[1])
    else:
        db.add_(dsums * keys.peak - _along(context, dsum)).div_(keys.peak)
    b = rule.key.map(widen(key))
    return rule.key.backward(widen(key), b, db).to(key.dtype)
