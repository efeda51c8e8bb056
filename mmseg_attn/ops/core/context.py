# Copyright (c) mmseg_attn contributors.
"""Attention through a global context: linear in the number of positions.

With feature maps a of the queries and b of the keys the dense attention
``(a b^T) v`` is ``a (b^T v)``, whose inner product, the context G, is a
matrix of key width times value width. So

    G = r * b^T v,   s = sum of b,   out = a G / (a . s),

where efficient attention has no denominator and linear attention no r. The
Taylor similarity 1 + q . k is one of features too: a channel of ones beside
q and k.

On a CPU positions pass in chunks that stay in the processor's cache; all sums
are at least fp32. Features are recomputed in the backward: only the inputs and
the context are kept. The GPU's way is :mod:`.context_gpu`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import device
from .autograd import is_traced, no_autocast, refuse_double_backward
from .context_gpu import WholeContext
from .features import MIN_DENOMINATOR, Rule
from .matmul import add_to, bmm, widen

# Elements of a chunk's query, key or value.
_CPU_CHUNK = 2**19


def _chunks(x: Tensor, width: int):
    """Slices of the positions of (B, n, heads, dim)."""
    step = max(16, _CPU_CHUNK // (x.shape[0] * x.shape[2] * width))
    return [slice(i, i + step) for i in range(0, x.shape[1], step)]


def _heads(x: Tensor, part: slice) -> Tensor:
    """Positions of (B, n, heads, dim) as (B, heads, part, dim), wide."""
    heads = widen(x[:, part]).transpose(1, 2)
    return heads.flatten(0, 1).view(heads.shape)


def _write(target: Tensor, part: slice, rows: Tensor) -> None:
    """The reverse of :func:`_heads`."""
    target[:, part].transpose(1, 2).copy_(rows)


class Context(torch.autograd.Function):
    """``apply(query, key, value, rule)`` on (B, n, heads, dim)."""

    @staticmethod
    def forward(ctx, query, key, value, rule):
        state = _summary(key, value, rule)
        out = value.new_empty(*query.shape[:-1], value.shape[-1])
        for part in _chunks(query, value.shape[-1]):
            a = rule.query.map(_heads(query, part))
            if rule.normalizes:
                a = a / _denominator(a, state, rule)
            _write(out, part, bmm(a, state.context))
        ctx.save_for_backward(query, key, value, *state)
        ctx.rule = rule
        return out

    @staticmethod
    def backward(ctx, grad):
        refuse_double_backward()
        query, key, value, *state = ctx.saved_tensors
        rule, state = ctx.rule, _State(*state)
        with no_autocast(grad):
            grads = [x.new_empty(x.shape) for x in (query, key, value)]
            context, keys = _query_backward(grad, query, rule, state, grads[0])
            _key_backward(key, value, rule, state, context, keys, *grads[1:])
        return *grads, None


class _State(NamedTuple):
    """What the keys and values are summed up to.

    Args:
        context: G, (B, heads, features, value_dim).
        keys: s, (B, heads, 1, features), if there is a denominator.
        factor: r, (B, heads, dim, 1), if it differs between channels.
        shift: Taken from keys before exp, (B, heads, 1, dim).
    """

    context: Tensor
    keys: Tensor | None
    factor: Tensor | None
    shift: Tensor | None


def _key_feature(k, rule, shift):
    return (k - shift).exp_() if rule.over_positions else rule.key.map(k)


def _summary(key, value, rule):
    context = keys = factor = shift = None
    if rule.over_positions:
        shift = widen(key.amax(1, keepdim=True)).transpose(1, 2)
    for part in _chunks(key, value.shape[-1]):
        b = _key_feature(_heads(key, part), rule, shift)
        context = add_to(context, bmm(b.mT, _heads(value, part)))
        if rule.over_positions or rule.normalizes:
            keys = add_to(keys, b.sum(-2, keepdim=True))
    if rule.over_positions:
        factor, keys = 1 / keys.mT, None
        context *= factor
    if rule.divisor != 1:
        context /= rule.divisor
    if rule.normalizes:
        keys[..., : key.shape[-1]] += rule.eps
    return _State(context, keys, factor, shift)


def _floor(keys, rule):
    """Below it, a denominator is nothing but rounding."""
    if not rule.cancels:
        return keys.new_full((), MIN_DENOMINATOR)
    return keys[..., -1:] * torch.finfo(keys.dtype).eps


def _denominator(a, state, rule):
    total = bmm(a, state.keys.mT)
    return torch.maximum(total, _floor(state.keys, rule))


def _query_backward(grad, query, rule, state, target):
    """Write the gradient of query; return those of the context and keys."""
    context = keys = None
    for part in _chunks(query, grad.shape[-1]):
        q, g = _heads(query, part), _heads(grad, part)
        a = scaled = rule.query.map(q)
        da = bmm(g, state.context.mT)
        if rule.normalizes:
            denominator = _denominator(a, state, rule)
            scaled = a / denominator
            # With <grad, out> = scaled . da, before da is divided.
            dden = (scaled * da).sum(-1, keepdim=True).div_(denominator).neg_()
            dden *= denominator > _floor(state.keys, rule)
            da = da.div_(denominator).add_(dden * state.keys)
            keys = add_to(keys, bmm(dden.mT, a))
        context = add_to(context, bmm(scaled.mT, g))
        _write(target, part, rule.query.backward(q, a, da))
    return context, keys


def _key_backward(key, value, rule, state, context, keys, dkey, dvalue):
    """Write the gradients of key and value."""
    if rule.over_positions:
        context = context * state.factor
        # What the softmax's backward subtracts: the sum over n of b * db.
        mean = (state.context * context).sum(-1, keepdim=True).mT
    if rule.divisor != 1:
        context = context / rule.divisor
    for part in _chunks(key, value.shape[-1]):
        k, v = _heads(key, part), _heads(value, part)
        b = _key_feature(k, rule, state.shift)
        _write(dvalue, part, bmm(b, context))
        db = bmm(v, context.mT)
        if rule.over_positions:
            dk = db.sub_(mean).mul_(b)
        else:
            if rule.normalizes:
                db += keys
            dk = rule.key.backward(k, b, db)
        _write(dkey, part, dk)


def _exportable(query, key, value, rule):
    """The same with whole tensors, of standard operators alone."""
    q, k, v = (widen(x).transpose(1, 2) for x in (query, key, value))
    a = rule.query.map(q)
    b = k.softmax(-2) if rule.over_positions else rule.key.map(k)
    out = a @ (b.mT @ v / rule.divisor)
    if rule.normalizes:
        eps = rule.eps * a[..., : k.shape[-1]].sum(-1, keepdim=True)
        keys = b.sum(-2, keepdim=True)
        total = a @ keys.mT + eps
        out = out / torch.maximum(total, _floor(keys, rule))
    return out.transpose(1, 2).to(value.dtype)


def context_attention(
    query: Tensor, key: Tensor, value: Tensor, rule: Rule
) -> Tensor:
    """Attention by a rule for autograd, compilers and exporters.

    Args:
        query: (B, *spatial, heads, dim).
        key, value: (B, *key_spatial, heads, dim or value_dim).
        rule: Which attention it is.

    Returns:
        (B, *spatial, heads, value_dim).
    """
    if is_traced():
        run = _exportable
    else:
        way = WholeContext if device.on_gpu(query) else Context
        run = way.apply
    with no_autocast(query):
        out = run(*(x.flatten(1, -3) for x in (query, key, value)), rule)
    return out.view(*query.shape[:-1], value.shape[-1])
