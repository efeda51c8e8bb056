# Copyright (c) mmseg_attn contributors.
"""Criss-cross attention: each position attends to its row and column."""

from __future__ import annotations

import torch
from torch import Tensor

from ._axis import attend, attend_backward, dots
from ._backends import Backend, register, select
from ._checks import check_qkv


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
        backend: ``'torch'`` (any device; keeps no affinity for the
            backward, except under torch.compile; differentiable once),
            ``'reference'`` (dense attention with a mask,
            differentiable any number of times; memory grows with the square
            of the positions) or None for the best that can run.

    Returns:
        (B, *spatial, heads, value_dim), in the dtype of the inputs. The
        softmax and all sums of fp16 and bf16 inputs are in fp32.

    Raises:
        TypeError: Inputs are not tensors of one floating point dtype.
        ValueError: Shapes that do not fit, or an unknown backend.
        RuntimeError: The named backend cannot run here.

    CCNet, https://arxiv.org/abs/1811.11721, equations 1 and 2.
    """
    check_qkv('criss_cross_attention', query, key, value, scale)
    run = select('criss_cross_attention', backend)
    return run(query, key, value, scale)


def _reference(query, key, value, scale):
    """Dense attention with the mask of the criss-cross pattern."""
    spatial = query.shape[1:-2]
    grid = torch.cartesian_prod(
        *(torch.arange(n, device=query.device) for n in spatial)
    ).view(-1, len(spatial))
    differs = (grid[:, None] != grid[None]).sum(-1)
    q, k, v = (
        x.flatten(1, -3).transpose(1, 2).to(_accumulator(x.dtype))
        for x in (query, key, value)
    )
    scores = scale * q @ k.mT
    weights = scores.masked_fill(differs > 1, -torch.inf).softmax(-1)
    out = (weights @ v).transpose(1, 2)
    return out.reshape(value.shape).to(value.dtype)


def _accumulator(dtype):
    """Dtype of the sums: fp32 for narrower ones."""
    return torch.promote_types(dtype, torch.float32)


class _CrissCross(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, scale):
        qkv = [_lines_ready(x) for x in (query, key, value)]
        axes = range(query.ndim - 3)
        # Autocast would narrow the products of the fp32 work tensors.
        with torch.autocast(query.device.type, enabled=False):
            out, lse = attend(*map(_widen, qkv), axes, scale)
        out = out.to(value.dtype)
        ctx.save_for_backward(*qkv, out, lse)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx, grad):
        if torch.is_grad_enabled():
            raise RuntimeError(
                "backend 'torch' of criss_cross_attention is differentiable "
                'once, but its gradient was asked for with '
                "create_graph=True: use backend='reference'"
            )
        *saved, lse = ctx.saved_tensors
        axes = range(grad.ndim - 3)
        with torch.autocast(grad.device.type, enabled=False):
            g, *qkv, out = map(_widen, (_lines_ready(grad), *saved))
            delta = dots(g, out)
            grads = [x.new_empty(x.shape) for x in qkv]
            attend_backward(g, *qkv, delta, lse, axes, ctx.scale, grads)
        return *(x.to(grad.dtype) for x in grads), None


def _widen(x):
    return x.to(_accumulator(x.dtype))


def _lines_ready(x):
    """The tensor itself if its lines are views of it, else a copy."""
    if x.stride(-1) == 1:
        try:
            x.view(-1, x.shape[-1])
            return x
        except RuntimeError:  # torch's only way to tell
            pass
    return x.contiguous()


def _traceable(query, key, value, scale):
    """The same sum with whole tensors, for tracers and exporters."""
    spatial = query.shape[1:-2]
    parts = []
    for axis, length in enumerate(spatial):
        # (B, *other axes, heads, length, dim)
        q, k = (x.movedim(1 + axis, -2) for x in (_widen(query), _widen(key)))
        s = scale * q @ k.mT
        if axis:
            own = torch.eye(length, dtype=torch.bool, device=s.device)
            s = s.masked_fill(own, -torch.inf)
        parts.append(s.movedim(-2, 1 + axis))
    weights = torch.cat(parts, -1).softmax(-1)
    out = 0
    for axis, w in enumerate(weights.split(spatial, -1)):
        v = _widen(value).movedim(1 + axis, -2)
        out = out + (w.movedim(1 + axis, -2) @ v).movedim(-2, 1 + axis)
    return out.to(value.dtype)


def _torch(query, key, value, scale):
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return _traceable(query, key, value, scale)
    return _CrissCross.apply(query, key, value, scale)


register(
    'criss_cross_attention',
    torch=Backend(_torch),
    reference=Backend(_reference),
)
