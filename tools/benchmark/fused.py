# Copyright (c) mmseg_attn contributors.
"""Attention by a chosen one of torch's kernels, and criss-cross by two.

Layout (N, heads, length, dim) as scaled_dot_product_attention has it, unless
said otherwise.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

aten = torch.ops.aten

BACKENDS = {
    'flash': SDPBackend.FLASH_ATTENTION,
    'mem-efficient': SDPBackend.EFFICIENT_ATTENTION,
    'cuDNN': SDPBackend.CUDNN_ATTENTION,
    'math': SDPBackend.MATH,
}
# Those that want a value as wide as the key, and how wide at best.
ONE_WIDTH = {'flash', 'cuDNN'}
WIDTH = 128


def attend(query, key, value, *, scale, backend):
    """scaled_dot_product_attention by one backend.

    Raises:
        RuntimeError: It refuses these tensors.
    """
    channels = value.shape[-1]
    if backend in ONE_WIDTH:
        query, key, value = in_parts(query, key, value)
    with sdpa_kernel(BACKENDS[backend]):
        out = F.scaled_dot_product_attention(query, key, value, scale=scale)
    return joined_parts(out, channels) if backend in ONE_WIDTH else out


def in_parts(query, key, value):
    """One head as several of one width: parts of the value, each with all.

    Query and key are padded to the width of a part; zeros change no score.

    Raises:
        RuntimeError: More than one head, or channels that do not divide.
    """
    dim, channels = query.shape[-1], value.shape[-1]
    width = max(dim, min(WIDTH, channels))
    if query.shape[1] > 1 or channels % width:
        raise RuntimeError(
            f'{query.shape[1]} heads of {channels} channels do not divide '
            f'into parts of {width}'
        )
    parts = channels // width
    query, key = (
        F.pad(x, (0, width - dim)).expand(-1, parts, -1, -1)
        for x in (query, key)
    )
    return query, key, _parts(value, parts)


def _parts(x, parts):
    return x.squeeze(1).unflatten(-1, (parts, -1)).transpose(1, 2)


def joined_parts(x, channels):
    """The one head of so many channels from its parts."""
    return x.transpose(1, 2).reshape(len(x), 1, -1, channels)


# Kernels that return the log-sum-exp of the scores (N, heads, length), and
# the gradients for a given output and log-sum-exp. Scores are not scaled.


def _flash(query, key, value):
    given = query, key, value
    if query.device.type == 'cpu':
        attend_on_cpu = aten._scaled_dot_product_flash_attention_for_cpu
        return *attend_on_cpu(*given, scale=1.0), ()
    out, lse, *rest = aten._scaled_dot_product_flash_attention(
        *given, scale=1.0
    )
    return out, lse, rest[:6]


def _flash_backward(grad, query, key, value, out, lse, rest):
    given = grad, query, key, value, out, lse
    if query.device.type == 'cpu':
        return aten._scaled_dot_product_flash_attention_for_cpu_backward(
            *given, 0.0, False, scale=1.0
        )
    *lengths, seed, offset = rest
    return aten._scaled_dot_product_flash_attention_backward(
        *given, *lengths, 0.0, False, seed, offset, scale=1.0
    )


def _efficient(query, key, value):
    out, lse, *rest = aten._scaled_dot_product_efficient_attention(
        query, key, value, None, True, scale=1.0
    )
    # It comes in whole tiles.
    return out, lse[..., : query.shape[2]], (lse.shape[-1], *rest)


def _efficient_backward(grad, query, key, value, out, lse, rest):
    length, *seeds = rest
    lse = F.pad(lse, (0, length - lse.shape[-1]), value=torch.inf)
    return aten._scaled_dot_product_efficient_attention_backward(
        grad, query, key, value, None, out, lse, *seeds,
        0.0, [True, True, True, False], False, scale=1.0,
    )[:3]  # fmt: skip


def _cudnn(query, key, value):
    out, lse, *rest = aten._scaled_dot_product_cudnn_attention(
        query, key, value, None, True, scale=1.0
    )
    return out, lse.view(out.shape[:3]), (lse.shape, *rest[:6])


def _cudnn_backward(grad, query, key, value, out, lse, rest):
    shape, *lengths, seed, offset = rest
    return aten._scaled_dot_product_cudnn_attention_backward(
        grad, query, key, value, out, lse.view(shape), seed, offset, None,
        *lengths, 0.0, False, scale=1.0,
    )  # fmt: skip


KERNELS = {
    'flash': (_flash, _flash_backward),
    'mem-efficient': (_efficient, _efficient_backward),
    'cuDNN': (_cudnn, _cudnn_backward),
}


def criss_cross(query, key, value, *, backend):
    """Rows and columns by one kernel each, merged by their log-sum-exp.

    Layout (B, H, W, 1, dim) as ours. The kernels have no mask that leaves
    out one key, so that the own position, counted twice, is taken out again.

    Raises:
        RuntimeError: The backend returns no log-sum-exp, or refuses.
    """
    if backend not in KERNELS:
        raise RuntimeError('it returns no log-sum-exp')
    return _CrissCross.apply(query, key, value, backend)


def _rows(x):
    return x.flatten(0, 1).transpose(1, 2)


def _from_rows(x, like):
    return x.transpose(1, 2).unflatten(0, like.shape[:2])


def _columns(x):
    return _rows(x.transpose(1, 2).contiguous())


def _from_columns(x, like):
    return _from_rows(x, like.transpose(1, 2)).transpose(1, 2)


PASSES = (_rows, _from_rows), (_columns, _from_columns)


class _CrissCross(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, backend):
        kernel, _ = KERNELS[backend]
        ctx.backend, ctx.rest = backend, []
        outs, sums = [], [_dots(query, key)]
        for split, join in PASSES:
            qkv = [split(x) for x in (query, key, value)]
            if backend in ONE_WIDTH:
                qkv = in_parts(*qkv)
            out, lse, rest = kernel(*qkv)
            if backend in ONE_WIDTH:
                out, lse = joined_parts(out, value.shape[-1]), lse[:, :1]
            outs.append(join(out, value))
            sums.append(join(lse[..., None], value))
            ctx.rest.append(rest)
        own, row, column = sums
        twice = torch.logaddexp(row, column)
        joint = twice + torch.log1p(-torch.exp(own - twice))
        own, row, column = (torch.exp(x - joint) for x in sums)
        out = (row * outs[0] + column * outs[1] - own * value).to(value.dtype)
        ctx.save_for_backward(query, key, value, out, joint, own)
        return out

    @staticmethod
    def backward(ctx, grad):
        query, key, value, out, joint, own = ctx.saved_tensors
        _, kernel = KERNELS[ctx.backend]
        step = own * (_dots(grad, value) - _dots(grad, out))
        totals = [-step * key, -step * query, -own * grad]
        for (split, join), rest in zip(PASSES, ctx.rest, strict=True):
            qkv = [split(x) for x in (query, key, value)]
            g, o, lse = (split(x) for x in (grad, out, joint))
            if ctx.backend in ONE_WIDTH:
                qkv = in_parts(*qkv)
                parts = qkv[0].shape[1]
                g, o = (_parts(x, parts) for x in (g, o))
                lse = lse.expand(-1, parts, -1, -1)
            lse = lse.squeeze(-1).contiguous()
            dq, dk, dv = kernel(g, *qkv, o, lse, rest)
            if ctx.backend in ONE_WIDTH:
                dim = query.shape[-1]
                dq, dk = (x.sum(1, True)[..., :dim] for x in (dq, dk))
                dv = joined_parts(dv, value.shape[-1])
            for total, x in zip(totals, (dq, dk, dv), strict=True):
                total += join(x, value)
        return *(x.to(value.dtype) for x in totals), None


def _dots(a, b):
    """Of rows of channels, in fp32 at least."""
    wide = torch.promote_types(a.dtype, torch.float32)
    return (a.to(wide) * b.to(wide)).sum(-1, keepdim=True)
