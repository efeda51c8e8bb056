# Copyright (c) mmseg_attn contributors.
"""The forward of attention within lines, in one pass over the keys.

The softmax is online: scores never leave the chip, and a line may have any
length (FlashAttention, https://arxiv.org/abs/2205.14135, algorithm 1). A
program has M queries and C channels of their output; the scores are
recomputed for each part of the channels, which costs arithmetic but no
memory. Products and sums are in fp32, the tensors stay in their own dtype.
"""

from __future__ import annotations

from .launch import jit, tl
from .lines import first_row, load_rows, rows_of, save_rows

# Crops vary in training: no kernels of their own for multiples of 16.
PLACE = ['length', 'n1', 'n2', 'a0', 'a1', 'inner', 'far', 'near']
CROSSING = [
    f'{name}{axis}'
    for axis in ('', 2)
    for name in ('length', 'after', 'size', 'count')
]


@jit
def attend_tile(
    query, key, value, out, bias, before, joint,
    query_step, key_step, value_step, out_step, line, start, c,
    length, n1, n2, a0, a1, inner, far, near, scale,
    WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, M: tl.constexpr,
    N: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
    LATER: tl.constexpr, NESTED: tl.constexpr, TMA: tl.constexpr,
    PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Attention of the queries start .. start + M of a line.

    Of the channels c .. c + C. The log-sum-exp of the earlier patterns,
    ``before``, is None for the first. ``joint`` is another buffer: the
    programs of all parts read the old one of a row, and any of them may write
    the new one first. With TMA the four tensors are descriptors (outer,
    length, after, width) and their steps are not used.
    """
    own = start + tl.arange(0, M)
    inside = own < length
    first = first_row(line, n1, n2, a0, a1)
    rows = rows_of(first, own, inner, far, near, NESTED)
    i, j = line // n2, line % n2
    if TMA:
        q = query.load([i, start, j, 0]).reshape(M, D)
    else:
        q = load_rows(query, query_step, rows, inside, 0, WIDTH, D)
    peak = tl.full((M,), float('-inf'), tl.float32)
    total = tl.zeros((M,), tl.float32)
    y = tl.zeros((M, C), tl.float32)
    for s0 in tl.range(0, length, N, num_stages=STAGES):
        other = s0 + tl.arange(0, N)
        there = other < length
        at = rows_of(first, other, inner, far, near, NESTED)
        if TMA:
            k = key.load([i, s0, j, 0]).reshape(N, D)
        else:
            k = load_rows(key, key_step, at, there, 0, WIDTH, D)
        s = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        s = s * scale
        if bias is not None:
            s += tl.load(bias + at, there, 0.0)[None, :]
        seen = there[None, :]
        if LATER:  # the own position was counted with the first pattern
            seen = seen & (own[:, None] != other[None, :])
        s = tl.where(seen, s, float('-inf'))
        # Finite from the first tile on: a later line has two positions or
        # more, so that each query sees a key in it.
        higher = tl.maximum(peak, tl.max(s, 1))
        p = tl.exp(s - higher[:, None])
        shrink = tl.exp(peak - higher)
        total = total * shrink + tl.sum(p, 1)
        y = y * shrink[:, None]
        if TMA:
            v = value.load([i, s0, j, c]).reshape(N, C)
        else:
            v = load_rows(value, value_step, at, there, c, VALUE_WIDTH, C)
        y = tl.dot(p.to(q.dtype), v, y, input_precision=PRECISION)
        peak = higher
    lse = peak + tl.log(total)
    y = y / total[:, None]
    if LATER:
        old = tl.load(before + rows, inside, 0.0)
        part = tl.sigmoid(lse - old)
        if TMA:
            was = out.load([i, start, j, c]).reshape(M, C)
        else:
            was = load_rows(out, out_step, rows, inside, c, VALUE_WIDTH, C)
        y = y * part[:, None] + was.to(tl.float32) * (1 - part)[:, None]
        # logaddexp
        lse = tl.maximum(lse, old) + tl.log(1 + tl.exp(-tl.abs(lse - old)))
    tl.store(joint + rows, lse, inside)
    if TMA:
        out.store([i, start, j, c], y.to(q.dtype).reshape(1, M, 1, C))
    else:
        save_rows(out, y, None, out_step, rows, inside, c, VALUE_WIDTH)


@jit(do_not_specialize=PLACE)
def attend_lines(
    query, key, value, out, bias, before, joint,
    query_step, key_step, value_step, out_step,
    length, n1, n2, a0, a1, inner, far, near, scale,
    WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, M: tl.constexpr,
    N: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
    LATER: tl.constexpr, NESTED: tl.constexpr, TMA: tl.constexpr,
    PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Attention within one pattern: see :func:`attend_tile`."""
    parts = tl.cdiv(VALUE_WIDTH, C)
    tiles = tl.cdiv(length, M)
    tile = tl.program_id(0) // parts
    attend_tile(
        query, key, value, out, bias, before, joint,
        query_step, key_step, value_step, out_step,
        tile // tiles, tile % tiles * M, tl.program_id(0) % parts * C,
        length, n1, n2, a0, a1, inner, far, near, scale,
        WIDTH, VALUE_WIDTH, M, N, D, C, LATER, NESTED, TMA, PRECISION, STAGES,
    )  # fmt: skip


@jit(do_not_specialize=[*CROSSING, 'groups'])
def attend_crossing_lines(
    query, key, value, out, before, joint, queue,
    query_step, key_step, value_step, out_step,
    length, after, size, count, length2, after2, size2, count2, groups, scale,
    WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, M: tl.constexpr,
    N: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
    PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Both axes of a picture in one launch: rows, then columns.

    A group is a part of the channels of a picture. Programs take what is next
    in a queue: the rows of a group, then those of the next one before the
    columns of the first, so that these seldom wait for the last of the rows,
    and find what these have read in the L2 cache. Who waits does so for
    programs that began earlier: so they end.

    Args:
        queue: The next place, then the rows done of each group; all 0.
        length, after, size, count: For the rows the positions of a line, the
            rows of memory between them, the rows of memory of ``after``
            lines, and the lines of a picture; then those for the columns.
        groups: Pictures times parts.
    """
    parts = tl.cdiv(VALUE_WIDTH, C)
    tiles, tiles2 = tl.cdiv(length, M), tl.cdiv(length2, M)
    early, late = count * tiles, count2 * tiles2
    place = tl.atomic_add(queue, 1, sem='relaxed')
    behind = tl.maximum(place - early, 0)
    turn = behind // (early + late)
    rest = behind % (early + late)
    # The last turn has columns alone.
    here = tl.where(turn < groups - 1, early, 0)
    begins = place < early
    if begins | (rest < here):
        group = tl.where(begins, 0, turn + 1)
        tile = tl.where(begins, place, rest)
        line = group // parts * count + tile // tiles
        attend_tile(
            query, key, value, out, None, None, before,
            query_step, key_step, value_step, out_step,
            line, tile % tiles * M, group % parts * C,
            length, 1, after, size, 0, length, 0, after, scale,
            WIDTH, VALUE_WIDTH, M, N, D, C, False, False, False, PRECISION,
            STAGES,
        )  # fmt: skip
        tl.debug_barrier()  # all of it is written
        tl.atomic_add(queue + 1 + group, 1, sem='release')
    else:
        tile = rest - here
        line = turn // parts * count2 + tile // tiles2
        done = tl.atomic_add(queue + 1 + turn, 0, sem='acquire')
        while done < early:
            done = tl.atomic_add(queue + 1 + turn, 0, sem='acquire')
        attend_tile(
            query, key, value, out, None, before, joint,
            query_step, key_step, value_step, out_step,
            line, tile % tiles2 * M, turn % parts * C,
            length2, 1, after2, size2, 0, length2, 0, after2, scale,
            WIDTH, VALUE_WIDTH, M, N, D, C, True, False, False, PRECISION,
            STAGES,
        )  # fmt: skip
