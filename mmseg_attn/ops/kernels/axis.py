# Copyright (c) mmseg_attn contributors.
"""The contract of :mod:`..core.axis` as fused Triton kernels.

The scores of a tile of a line never leave the chip. A line that fits one
tile keeps its weights there while the value channels pass by in chunks; the
backward recomputes them from the joint log-sum-exp. Longer lines recompute
the scores tile by tile, which costs arithmetic but no memory (FlashAttention,
https://arxiv.org/abs/2205.14135, algorithms 1 and 4, with the log-sum-exp
known before the values are read). Products and sums are in fp32 while the
tensors stay in their own dtype. The attention is that of CCNet,
https://arxiv.org/abs/1811.11721, equations 1 and 2.

A tensor (B, *spatial, heads, dim) is rows of channels ``step`` apart. The
line along an axis has the rows ``first + position * after``, where ``after``
counts the rows behind that axis. So every axis is a strided view, and one
stride per tensor tells all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.axis import used_axes
from ..core.device import tf32_is_allowed
from .launch import jit, tl, triton

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Crops vary in training: no kernels of their own for multiples of 16.
_kernel = jit(do_not_specialize=['length', 'after'])


def limits(query: Tensor, key: Tensor, value: Tensor) -> str | None:
    """What of (B, *spatial, heads, dim) inputs the kernels cannot do."""
    if query.dtype not in _DTYPES:
        return f'needs float32, bfloat16 or float16, got {query.dtype}'
    if not 8 <= key.shape[-1] <= 128:
        return f'needs a key width of 8 to 128, got {key.shape[-1]}'
    if value.shape[-1] > 1024:
        return f'needs a value width of at most 1024, got {value.shape[-1]}'
    if max(query.shape[1:-2]) > 1024:
        return f'needs axes of at most 1024, got {max(query.shape[1:-2])}'
    return None


@jit
def _rows(line, positions, length, after):
    """Rows of positions of a line, in 64 bits: maps may be that large."""
    first = (line // after).to(tl.int64) * length * after + line % after
    return first + positions.to(tl.int64) * after


@jit
def _load(x, step, rows, inside, start, WIDTH: tl.constexpr, C: tl.constexpr):
    """Channels start .. start + C of rows; 0 beyond the line or the width."""
    channels = start + tl.arange(0, C)
    mask = inside[:, None] & (channels < WIDTH)[None, :]
    return tl.load(x + rows[:, None] * step + channels[None, :], mask, 0.0)


@jit
def _save(x, y, keep, step, rows, inside, start, WIDTH: tl.constexpr):
    """Write y to channels start, ..., or keep * x + y if there is a keep."""
    channels = start + tl.arange(0, y.shape[1])
    mask = inside[:, None] & (channels < WIDTH)[None, :]
    at = x + rows[:, None] * step + channels[None, :]
    if keep is not None:
        y += keep * tl.load(at, mask, 0.0).to(tl.float32)
    tl.store(at, y.to(x.dtype.element_ty), mask)


@jit
def _scores(
    x, own, y, step, line, start, length, after, scale,
    WIDTH: tl.constexpr, N: tl.constexpr, KEYS: tl.constexpr,
    LATER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Scores of a tile x with N rows of y, -inf where a key is not seen.

    x are keys at the positions ``own`` if KEYS, else queries. Returns also
    the tile of y, its rows and which of them are inside the line.
    """
    other = start + tl.arange(0, N)
    inside = other < length
    rows = _rows(line, other, length, after)
    tile = _load(y, step, rows, inside, 0, WIDTH, x.shape[1])
    scores = tl.dot(x, tl.trans(tile), input_precision=PRECISION) * scale
    seen = (own < length)[:, None] if KEYS else inside[None, :]
    if LATER:  # the own position was counted with the first axis
        seen = seen & (own[:, None] != other[None, :])
    return tl.where(seen, scores, float('-inf')), tile, rows, inside


@jit
def _narrow(x, dtype: tl.constexpr):
    """x as y * factor, with y in the dtype of the products.

    Gradients of scores sum over the channels: those of a scaled loss may
    leave the range of fp16.
    """
    if dtype == tl.float16:
        factor = tl.maximum(tl.max(tl.max(tl.abs(x), 1), 0), 1e-30)
        return (x * (1 / factor)).to(dtype), factor
    else:
        return x.to(dtype), 1.0


@_kernel
def _forward(
    query, key, value, out, before, joint,
    query_step, key_step, value_step, out_step, length, after, scale,
    WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, M: tl.constexpr,
    N: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
    ONE_TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """M queries of a line, N keys and C channels of the values at a time.

    The log-sum-exp of the earlier axes, ``before``, is None for the first.
    ``joint`` is another buffer: several threads read the old one of a row,
    and any of them may write the new one first.
    """
    tiles = tl.cdiv(length, M)
    line = tl.program_id(0) // tiles
    own = tl.program_id(0) % tiles * M + tl.arange(0, M)
    inside = own < length
    rows = _rows(line, own, length, after)
    q = _load(query, query_step, rows, inside, 0, WIDTH, D)
    LATER: tl.constexpr = before is not None
    if ONE_TILE:
        s, _, keys, seen = _scores(
            q, own, key, key_step, line, 0, length, after, scale,
            WIDTH, N, False, LATER, PRECISION,
        )  # fmt: skip
        peak = tl.max(s, 1)
        p = tl.exp(s - peak[:, None])
        total = tl.sum(p, 1)
        p = p.to(q.dtype)
    else:
        # The first tile is full, so that each query sees a key in it, and
        # the peak is finite from there on.
        peak = tl.full((M,), float('-inf'), tl.float32)
        total = tl.zeros((M,), tl.float32)
        for start in range(0, length, N):
            s, _, _, _ = _scores(
                q, own, key, key_step, line, start, length, after, scale,
                WIDTH, N, False, LATER, PRECISION,
            )  # fmt: skip
            higher = tl.maximum(peak, tl.max(s, 1))
            total *= tl.exp(peak - higher)
            total += tl.sum(tl.exp(s - higher[:, None]), 1)
            peak = higher
    lse = peak + tl.log(total)
    factor = 1 / total
    keep = None
    if LATER:
        old = tl.load(before + rows, inside, 0.0)
        part = tl.sigmoid(lse - old)
        factor *= part
        keep = (1 - part)[:, None]
        # logaddexp
        lse = tl.maximum(lse, old) + tl.log(1 + tl.exp(-tl.abs(lse - old)))
    tl.store(joint + rows, lse, inside)
    for c in range(0, VALUE_WIDTH, C):
        if ONE_TILE:
            v = _load(value, value_step, keys, seen, c, VALUE_WIDTH, C)
            o = tl.dot(p, v, input_precision=PRECISION)
        else:
            o = tl.zeros((M, C), tl.float32)
            for start in range(0, length, N):
                s, _, keys, seen = _scores(
                    q, own, key, key_step, line, start, length, after, scale,
                    WIDTH, N, False, LATER, PRECISION,
                )  # fmt: skip
                p = tl.exp(s - peak[:, None]).to(q.dtype)
                v = _load(value, value_step, keys, seen, c, VALUE_WIDTH, C)
                o = tl.dot(p, v, o, input_precision=PRECISION)
        o *= factor[:, None]
        _save(out, o, keep, out_step, rows, inside, c, VALUE_WIDTH)


@_kernel
def _backward_line(
    grad, query, key, value, delta, lse, dq, dk, dv,
    grad_step, query_step, key_step, value_step, dq_step, dk_step, dv_step,
    length, after, scale, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    N: tl.constexpr, D: tl.constexpr, C: tl.constexpr, LATER: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """All gradients of a line of at most N positions.

    Keys go down and queries across, so that the weights are a left operand
    as they come.
    """
    line = tl.program_id(0)
    own = tl.arange(0, N)
    inside = own < length
    rows = _rows(line, own, length, after)
    k = _load(key, key_step, rows, inside, 0, WIDTH, D)
    s, q, _, _ = _scores(
        k, own, query, query_step, line, 0, length, after, scale,
        WIDTH, N, True, LATER, PRECISION,
    )  # fmt: skip
    p = tl.exp(s - tl.load(lse + rows, inside, 0.0)[None, :])
    keep = 1.0 if LATER else None
    dp = tl.zeros((N, N), tl.float32)
    for c in range(0, VALUE_WIDTH, C):
        g = _load(grad, grad_step, rows, inside, c, VALUE_WIDTH, C)
        if dq is not None or dk is not None:
            v = _load(value, value_step, rows, inside, c, VALUE_WIDTH, C)
            dp = tl.dot(v, tl.trans(g), dp, input_precision=PRECISION)
        if dv is not None:
            y = tl.dot(p.to(g.dtype), g, input_precision=PRECISION)
            _save(dv, y, keep, dv_step, rows, inside, c, VALUE_WIDTH)
    if dq is not None or dk is not None:
        ds = p * (dp - tl.load(delta + rows, inside, 0.0)[None, :]) * scale
        ds, factor = _narrow(ds, q.dtype)
        if dk is not None:
            y = tl.dot(ds, q, input_precision=PRECISION) * factor
            _save(dk, y, keep, dk_step, rows, inside, 0, WIDTH)
        if dq is not None:
            y = tl.dot(tl.trans(ds), k, input_precision=PRECISION) * factor
            _save(dq, y, keep, dq_step, rows, inside, 0, WIDTH)


@_kernel
def _backward_scores(
    x, y, a, b, delta, lse, dx, x_step, y_step, a_step, b_step, dx_step,
    length, after, scale, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
    KEYS: tl.constexpr, LATER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of M keys of a line if KEYS, else that of M queries.

    x, y are key, query and a, b value, grad, or the other way round.
    """
    tiles = tl.cdiv(length, M)
    line = tl.program_id(0) // tiles
    own = tl.program_id(0) % tiles * M + tl.arange(0, M)
    inside = own < length
    rows = _rows(line, own, length, after)
    tile = _load(x, x_step, rows, inside, 0, WIDTH, D)
    if not KEYS:
        joint = tl.load(lse + rows, inside, 0.0)[:, None]
        shift = tl.load(delta + rows, inside, 0.0)[:, None]
    total = tl.zeros((M, D), tl.float32)
    for start in range(0, length, N):
        s, other, at, seen = _scores(
            tile, own, y, y_step, line, start, length, after, scale,
            WIDTH, N, KEYS, LATER, PRECISION,
        )  # fmt: skip
        if KEYS:
            joint = tl.load(lse + at, seen, 0.0)[None, :]
            shift = tl.load(delta + at, seen, 0.0)[None, :]
        dp = tl.zeros((M, N), tl.float32)
        for c in range(0, VALUE_WIDTH, C):
            left = _load(a, a_step, rows, inside, c, VALUE_WIDTH, C)
            right = _load(b, b_step, at, seen, c, VALUE_WIDTH, C)
            dp = tl.dot(left, tl.trans(right), dp, input_precision=PRECISION)
        ds = tl.exp(s - joint) * (dp - shift) * scale
        ds, factor = _narrow(ds, other.dtype)
        total += tl.dot(ds, other, input_precision=PRECISION) * factor
    keep = 1.0 if LATER else None
    _save(dx, total, keep, dx_step, rows, inside, 0, WIDTH)


@_kernel
def _backward_values(
    grad, query, key, lse, dv, grad_step, query_step, key_step, dv_step,
    length, after, scale, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
    LATER: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """C channels of the gradient of M values of a line."""
    tiles = tl.cdiv(length, M)
    line = tl.program_id(0) // tiles
    own = tl.program_id(0) % tiles * M + tl.arange(0, M)
    inside = own < length
    rows = _rows(line, own, length, after)
    c = tl.program_id(1) * C
    k = _load(key, key_step, rows, inside, 0, WIDTH, D)
    y = tl.zeros((M, C), tl.float32)
    for start in range(0, length, N):
        s, _, at, seen = _scores(
            k, own, query, query_step, line, start, length, after, scale,
            WIDTH, N, True, LATER, PRECISION,
        )  # fmt: skip
        p = tl.exp(s - tl.load(lse + at, seen, 0.0)[None, :]).to(k.dtype)
        g = _load(grad, grad_step, at, seen, c, VALUE_WIDTH, C)
        y = tl.dot(p, g, y, input_precision=PRECISION)
    keep = 1.0 if LATER else None
    _save(dv, y, keep, dv_step, rows, inside, c, VALUE_WIDTH)


def _plan(query, value, length, backward):
    """Tiles of M own rows and N others, warps and stages of the kernels.

    Tiles are powers of two and at least 16, as tl.dot has it. A line of at
    most N positions is one tile. Chosen by the registers and shared memory of
    the kernels compiled for sm_80 and sm_90, not by time: up to 112 KiB on
    sm_90, 72 KiB on sm_80, few spills but for rows not aligned to 16 bytes.
    IEEE products of fp32 hold whole rows of their operands in registers.
    """
    width, value_width = query.shape[-1], value.shape[-1]
    precision = 'ieee'
    if query.dtype != torch.float32:
        most = 128 if length <= 128 else 64
        chunk = 32 if backward else 128
    elif tf32_is_allowed():
        most, chunk, precision = 64, 32, 'tf32'
    else:
        most, chunk = 32 if width <= 64 else 16, 64
    n = min(_power(length), most)
    wide = most <= 32 or (backward and n == 128)
    return min(n, 64), dict(
        WIDTH=width,
        VALUE_WIDTH=value_width,
        N=n,
        D=_power(width),
        C=min(_power(value_width), chunk),
        PRECISION=precision,
        num_warps=8 if wide else 4,
        num_stages=2,
    )


def _power(n):
    """The next power of two that is a size of a product."""
    return max(16, triton.next_power_of_2(n))


def _geometry(shape, axis):
    """Lines along an axis, their length, and the rows behind the axis."""
    length = shape[1 + axis]
    return shape[:-1].numel() // length, length, shape[2 + axis : -1].numel()


def _steps(*tensors):
    """Strides between rows of channels."""
    return [
        0 if x is None else x.view(-1, x.shape[-1]).stride(0) for x in tensors
    ]


def attend(
    query: Tensor, key: Tensor, value: Tensor, axes, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention of each position over its lines along the given axes.

    Args:
        query, key: (B, *spatial, heads, dim), in float32, bfloat16 or
            float16 and within :func:`limits`. Rows of channels lie one
            stride apart: ``x.view(-1, dim)`` works.
        value: (B, *spatial, heads, value_dim), likewise.
        axes: Spatial axes, counted from 0. The own position counts once.
        scale: Factor of the scores.

    Returns:
        The output, of value's shape and dtype, and the log-sum-exp of the
        scores, (B, *spatial, heads, 1), in fp32.
    """
    out = torch.empty(value.shape, dtype=value.dtype, device=value.device)
    tensors = query, key, value, out
    lse = None
    for axis, _ in used_axes(axes, query.shape):
        lines, length, after = _geometry(query.shape, axis)
        m, plan = _plan(query, value, length, backward=False)
        joint = torch.empty(
            (*out.shape[:-1], 1), dtype=torch.float32, device=out.device
        )
        with torch.cuda.device_of(query):  # Triton takes the current one
            _forward[(lines * triton.cdiv(length, m),)](
                *tensors, lse, joint, *_steps(*tensors),
                length, after, float(scale),
                M=m, ONE_TILE=length <= plan['N'], **plan,
            )  # fmt: skip
        lse = joint
    return out, lse


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
        grad, query, key, value: Of one dtype, as for :func:`attend`.
        delta: <grad, output of attend> at each position,
            (B, *spatial, heads, 1), in fp32 and contiguous like lse.
        lse: What attend returned.
        axes, scale: As for attend.
        out: Where to, in rows as the inputs; None leaves a gradient out.
            That of value may be written over value once the other two are
            known.
    """
    dq, dk, dv = out
    width = value.shape[-1]
    for axis, later in used_axes(axes, query.shape):
        lines, length, after = _geometry(query.shape, axis)
        m, plan = _plan(query, value, length, backward=True)
        line = length, after, float(scale)
        with torch.cuda.device_of(query):
            if length <= plan['N']:
                rows = grad, query, key, value
                _backward_line[(lines,)](
                    *rows, delta, lse, *out, *_steps(*rows, *out), *line,
                    LATER=later, **plan,
                )  # fmt: skip
                continue
            tiles = lines * triton.cdiv(length, m)
            for keys, dx, *rows in (
                (False, dq, query, key, grad, value),
                (True, dk, key, query, value, grad),
            ):
                if dx is not None:
                    _backward_scores[(tiles,)](
                        *rows, delta, lse, dx, *_steps(*rows, dx), *line,
                        M=m, KEYS=keys, LATER=later, **plan,
                    )  # fmt: skip
            if dv is not None:  # weights times channels, as in the forward
                m, plan = _plan(query, value, length, backward=False)
                tiles = lines * triton.cdiv(length, m)
                rows = grad, query, key
                _backward_values[(tiles, triton.cdiv(width, plan['C']))](
                    *rows, lse, dv, *_steps(*rows, dv), *line,
                    M=m, LATER=later, **plan,
                )  # fmt: skip
