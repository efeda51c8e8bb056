# Copyright (c) mmseg_attn contributors.
"""Where the groups of positions lie that attend to each other.

A tensor (B, *spatial, heads, dim) is rows of channels, one stride apart. A
line is a group of ``length`` rows: the positions along an axis of the grid,
a window of it, or a strided grid. Two strides reach its positions, three
numbers its first row, so that no pattern needs a copy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from .launch import jit, tl


class Lines(NamedTuple):
    """Groups of rows.

    Line ``l`` begins at row ``l // (n1 * n2) * a0 + l // n2 % n1 * a1 + l %
    n2``; its position ``p`` is ``p // inner * far + p % inner * near`` rows
    further.

    Attributes:
        count: How many lines there are.
        length: Positions of each.
        n1, n2, a0, a1, inner, far, near: See above.
        exclude_self: Whether a position leaves itself out.
    """

    count: int
    length: int
    n1: int
    n2: int
    a0: int
    a1: int
    inner: int
    far: int
    near: int
    exclude_self: bool = False

    @property
    def nested(self) -> bool:
        """Whether a second stride is needed."""
        return self.inner < self.length

    @property
    def place(self) -> tuple[int, ...]:
        """What the kernels are told."""
        return self[1:9]


@lru_cache(maxsize=1024)
def along(
    shape: Sequence[int], axis: int, exclude_self: bool = False
) -> Lines:
    """The lines along one spatial axis of (B, *spatial, heads, dim)."""
    length, after = shape[1 + axis], math.prod(shape[2 + axis : -1])
    before = math.prod(shape[: 1 + axis])
    return Lines(
        before * after, length, n1=1, n2=after, a0=length * after, a1=0,
        inner=length, far=0, near=after, exclude_self=exclude_self,
    )  # fmt: skip


@lru_cache(maxsize=1024)
def strided(shape: Sequence[int], partition: Sequence[int]) -> Lines:
    """Positions of the same place in all cells of a partition.

    Args:
        shape: (B, *spatial, heads, dim) with one or two spatial axes.
        partition: Sides of a cell, which divide the spatial axes.
    """
    batch, *_, heads, _ = shape
    (height, width), (high, wide) = _two(shape[1:-2]), _two(partition)
    rows, columns = height // high, width // wide
    return Lines(
        batch * high * wide * heads, rows * columns,
        n1=high, n2=wide * heads, a0=height * width * heads, a1=width * heads,
        inner=columns, far=high * width * heads, near=wide * heads,
    )  # fmt: skip


@lru_cache(maxsize=1024)
def windows(shape: Sequence[int], partition: Sequence[int]) -> Lines:
    """The cells of a partition; arguments as of :func:`strided`."""
    batch, *_, heads, _ = shape
    (height, width), (high, wide) = _two(shape[1:-2]), _two(partition)
    rows, columns = height // high, width // wide
    return Lines(
        batch * rows * columns * heads, high * wide,
        n1=columns, n2=heads, a0=high * width * heads, a1=wide * heads,
        inner=wide, far=width * heads, near=heads,
    )  # fmt: skip


def _two(sizes):
    return (1, *sizes) if len(sizes) == 1 else tuple(sizes)


@jit
def first_row(line, n1, n2, a0, a1):
    """In 64 bits: maps may be that large."""
    outer = (line // (n1 * n2)).to(tl.int64) * a0
    return outer + (line // n2 % n1).to(tl.int64) * a1 + line % n2


@jit
def rows_of(first, positions, inner, far, near, NESTED: tl.constexpr):
    """Rows of positions of a line."""
    if NESTED:
        rows = (positions // inner).to(tl.int64) * far
        return first + rows + (positions % inner).to(tl.int64) * near
    else:
        return first + positions.to(tl.int64) * near


@jit
def load_rows(
    x, step, rows, inside, start, WIDTH: tl.constexpr, C: tl.constexpr
):
    """Channels start .. start + C of rows; 0 beyond the line or the width."""
    channels = start + tl.arange(0, C)
    if WIDTH % C == 0:
        mask = inside[:, None]
    else:
        mask = inside[:, None] & (channels < WIDTH)[None, :]
    return tl.load(x + rows[:, None] * step + channels[None, :], mask, 0.0)


@jit
def add_rows(x, y, step, rows, inside, WIDTH: tl.constexpr):
    """Add y to fp32 rows that other programs add to as well."""
    channels = tl.arange(0, y.shape[1])
    mask = inside[:, None] & (channels < WIDTH)[None, :]
    at = x + rows[:, None] * step + channels[None, :]
    tl.atomic_add(at, y, mask, sem='relaxed')


@jit
def save_rows(x, y, keep, step, rows, inside, start, WIDTH: tl.constexpr):
    """Write y to channels start, ..., or keep * x + y if there is a keep."""
    channels = start + tl.arange(0, y.shape[1])
    mask = inside[:, None] & (channels < WIDTH)[None, :]
    at = x + rows[:, None] * step + channels[None, :]
    if keep is not None:
        y += keep * tl.load(at, mask, 0.0).to(tl.float32)
    tl.store(at, y.to(x.dtype.element_ty), mask)
