# Copyright (c) mmseg_attn contributors.
"""The backward of attention within lines.

All of them recompute the weights from the joint log-sum-exp (FlashAttention,
https://arxiv.org/abs/2205.14135, algorithm 4).

:func:`line_gradients` does all in one pass: a program has M keys, and the
queries of the line pass by, once for C channels of the values at a time: the
gradient of the scores is linear in the channels. The queries' gradients are
sums over programs, which add to them in fp32, in memory: in no fixed order,
by which the last bit may differ between two runs. :func:`score_gradients` and
:func:`value_gradients` are for where it must not: they recompute the scores
for each gradient, and each program writes what is its own.
"""

from __future__ import annotations

from .forward import PLACE
from .launch import jit, tl
from .lines import (
    add_rows,
    first_row,
    load_rows,
    rows_of,
    save_rows,
)


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


@jit
def _add_product(total, x, y, factor, PRECISION: tl.constexpr):
    """total + factor * x y, by the product itself where nothing scales."""
    if x.dtype == tl.float16:
        return total + factor * tl.dot(x, y, input_precision=PRECISION)
    else:
        return tl.dot(x, y, total, input_precision=PRECISION)


@jit(do_not_specialize=PLACE)
def line_gradients(
    grad, query, key, value, bias, delta, lse, dq, dk, dv,
    grad_step, query_step, key_step, value_step, dq_step, dk_step, dv_step,
    length, n1, n2, a0, a1, inner, far, near, scale,
    WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, M: tl.constexpr,
    N: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
    LATER: tl.constexpr, NESTED: tl.constexpr, TMA: tl.constexpr,
    PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """M keys of a line, C channels of the values at a time.

    dq is fp32 and begins at 0. With TMA grad, query, key, value and dv are
    descriptors (outer, length, after, width).
    """
    tiles = tl.cdiv(length, M)
    line = tl.program_id(0) // tiles
    start = tl.program_id(0) % tiles * M
    own = start + tl.arange(0, M)
    inside = own < length
    first = first_row(line, n1, n2, a0, a1)
    rows = rows_of(first, own, inner, far, near, NESTED)
    i, j = line // n2, line % n2
    SCORES: tl.constexpr = dq is not None or dk is not None
    keep: tl.constexpr = 1.0 if LATER else None
    if TMA:
        k = key.load([i, start, j, 0]).reshape(M, D)
    else:
        k = load_rows(key, key_step, rows, inside, 0, WIDTH, D)
    if bias is not None:
        shift = tl.load(bias + rows, inside, 0.0)[None, :]
    yk = tl.zeros((M, D), tl.float32)
    for c in range(0, VALUE_WIDTH, C):
        if SCORES:
            if TMA:
                v = value.load([i, start, j, c]).reshape(M, C)
            else:
                v = load_rows(
                    value, value_step, rows, inside, c, VALUE_WIDTH, C
                )
        yv = tl.zeros((M, C), tl.float32)
        for s0 in tl.range(0, length, N, num_stages=STAGES):
            other = s0 + tl.arange(0, N)
            there = other < length
            at = rows_of(first, other, inner, far, near, NESTED)
            if TMA:
                q = query.load([i, s0, j, 0]).reshape(N, D)
                g = grad.load([i, s0, j, c]).reshape(N, C)
            else:
                q = load_rows(query, query_step, at, there, 0, WIDTH, D)
                g = load_rows(grad, grad_step, at, there, c, VALUE_WIDTH, C)
            joint = tl.load(lse + at, there, 0.0)
            s = tl.dot(q, tl.trans(k), input_precision=PRECISION)
            s = s * scale
            if bias is not None:
                s += shift
            seen = inside[None, :] & there[:, None]
            if LATER:
                seen = seen & (own[None, :] != other[:, None])
            p = tl.where(seen, tl.exp(s - joint[:, None]), 0.0)
            if dv is not None:
                w = tl.trans(p.to(g.dtype))
                yv = tl.dot(w, g, yv, input_precision=PRECISION)
            if SCORES:
                dp = tl.dot(g, tl.trans(v), input_precision=PRECISION)
                # Of all channels: it is taken from the first ones.
                d = tl.load(delta + at, there, 0.0)
                d = tl.where(c == 0, d, 0.0)
                ds, factor = _narrow(p * (dp - d[:, None]) * scale, q.dtype)
                if dk is not None:
                    yk = _add_product(yk, tl.trans(ds), q, factor, PRECISION)
                if dq is not None:
                    yq = tl.dot(ds, k, input_precision=PRECISION) * factor
                    add_rows(dq, yq, dq_step, at, there, WIDTH)
        if dv is not None:
            if TMA:
                if LATER:
                    was = dv.load([i, start, j, c]).reshape(M, C)
                    yv += was.to(tl.float32)
                dv.store([i, start, j, c], yv.to(k.dtype).reshape(1, M, 1, C))
            else:
                save_rows(dv, yv, keep, dv_step, rows, inside, c, VALUE_WIDTH)
    if dk is not None:
        save_rows(dk, yk, keep, dk_step, rows, inside, 0, WIDTH)


@jit
def _weights(
    x, own, bias, y, step, first, start, length, inner, far, near, scale,
    WIDTH: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
    KEYS: tl.constexpr, LATER: tl.constexpr, NESTED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Scores of a tile x with N rows of y, -inf where a key is not seen.

    x are keys at the positions ``own`` if KEYS, else queries; ``bias`` is
    that of all rows. Returns also the tile of y, its rows and which of them
    are inside the line.
    """
    other = start + tl.arange(0, N)
    there = other < length
    at = rows_of(first, other, inner, far, near, NESTED)
    tile = load_rows(y, step, at, there, 0, WIDTH, D)
    s = tl.dot(x, tl.trans(tile), input_precision=PRECISION) * scale
    if bias is not None:
        if KEYS:
            rows = rows_of(first, own, inner, far, near, NESTED)
            s += tl.load(bias + rows, own < length, 0.0)[:, None]
        else:
            s += tl.load(bias + at, there, 0.0)[None, :]
    seen = (own < length)[:, None] if KEYS else there[None, :]
    if LATER:
        seen = seen & (own[:, None] != other[None, :])
    return tl.where(seen, s, float('-inf')), tile, at, there


@jit(do_not_specialize=PLACE)
def score_gradients(
    x, y, a, b, bias, delta, lse, dx, x_step, y_step, a_step, b_step, dx_step,
    length, n1, n2, a0, a1, inner, far, near, scale,
    WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, M: tl.constexpr,
    N: tl.constexpr, D: tl.constexpr, C: tl.constexpr, KEYS: tl.constexpr,
    LATER: tl.constexpr, NESTED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of M keys of a line if KEYS, else that of M queries.

    x, y are key, query and a, b value, grad, or the other way round.
    """
    tiles = tl.cdiv(length, M)
    line = tl.program_id(0) // tiles
    own = tl.program_id(0) % tiles * M + tl.arange(0, M)
    inside = own < length
    first = first_row(line, n1, n2, a0, a1)
    rows = rows_of(first, own, inner, far, near, NESTED)
    tile = load_rows(x, x_step, rows, inside, 0, WIDTH, D)
    if not KEYS:
        joint = tl.load(lse + rows, inside, 0.0)[:, None]
        d = tl.load(delta + rows, inside, 0.0)[:, None]
    total = tl.zeros((M, D), tl.float32)
    for s0 in range(0, length, N):
        s, other, at, there = _weights(
            tile, own, bias, y, y_step, first, s0, length, inner, far, near,
            scale, WIDTH, N, D, KEYS, LATER, NESTED, PRECISION,
        )  # fmt: skip
        if KEYS:
            joint = tl.load(lse + at, there, 0.0)[None, :]
            d = tl.load(delta + at, there, 0.0)[None, :]
        dp = tl.zeros((M, N), tl.float32)
        for c in range(0, VALUE_WIDTH, C):
            left = load_rows(a, a_step, rows, inside, c, VALUE_WIDTH, C)
            right = load_rows(b, b_step, at, there, c, VALUE_WIDTH, C)
            dp = tl.dot(left, tl.trans(right), dp, input_precision=PRECISION)
        ds = tl.exp(s - joint) * (dp - d) * scale
        ds, factor = _narrow(ds, other.dtype)
        total = _add_product(total, ds, other, factor, PRECISION)
    keep = 1.0 if LATER else None
    save_rows(dx, total, keep, dx_step, rows, inside, 0, WIDTH)


@jit(do_not_specialize=PLACE)
def value_gradients(
    grad, query, key, bias, lse, dv, grad_step, query_step, key_step, dv_step,
    length, n1, n2, a0, a1, inner, far, near, scale,
    WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, M: tl.constexpr,
    N: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
    LATER: tl.constexpr, NESTED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """C channels of the gradient of M values of a line."""
    parts = tl.cdiv(VALUE_WIDTH, C)
    tiles = tl.cdiv(length, M)
    c = tl.program_id(0) % parts * C
    line = tl.program_id(0) // parts // tiles
    own = tl.program_id(0) // parts % tiles * M + tl.arange(0, M)
    inside = own < length
    first = first_row(line, n1, n2, a0, a1)
    rows = rows_of(first, own, inner, far, near, NESTED)
    k = load_rows(key, key_step, rows, inside, 0, WIDTH, D)
    y = tl.zeros((M, C), tl.float32)
    for s0 in range(0, length, N):
        s, _, at, there = _weights(
            k, own, bias, query, query_step, first, s0, length, inner, far,
            near, scale, WIDTH, N, D, True, LATER, NESTED, PRECISION,
        )  # fmt: skip
        joint = tl.load(lse + at, there, 0.0)[None, :]
        p = tl.exp(s - joint).to(k.dtype)
        g = load_rows(grad, grad_step, at, there, c, VALUE_WIDTH, C)
        y = tl.dot(p, g, y, input_precision=PRECISION)
    keep = 1.0 if LATER else None
    save_rows(dv, y, keep, dv_step, rows, inside, c, VALUE_WIDTH)
