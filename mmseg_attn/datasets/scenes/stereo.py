# Copyright (c) mmseg_attn contributors.
"""Scenes seen by two cameras, with the exact disparity of each pixel."""

from pathlib import Path

import numpy as np

from ...errors import UserError
from ...files import whole
from ...pictures.disparity_files import write_pfm
from ...png import write_png
from .scene import random_state

# Boards in front of the ground.
BOARDS = 6
MIN_SIZE = 64


def make_pair(
    random: np.random.RandomState, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw textured boards that stand one before the other.

    A board is as many pixels farther left in the right picture as it is
    near. What a nearer one hides there has its true disparity nevertheless.

    Args:
        random: The source of all numbers.
        size: Height in pixels; the width is twice that.

    Returns:
        Left and right picture (size, 2 * size, 3) uint8 RGB, and disparities
        (size, 2 * size) float32, whole pixels of 1 to ``size // 4``.
    """
    height, width, reach = size, 2 * size, size // 4

    def draw(low: int, high: int, *shape: int) -> np.ndarray:
        return random.randint(low, high, size=shape or None, dtype=np.int64)

    def texture(rows: int, columns: int) -> np.ndarray:
        # Coarse patches and fine grain: something to match at each scale.
        total = draw(40, 160, 3) * np.ones((rows, columns, 1), np.int64)
        for block, strength in ((8, 60), (3, 50), (1, 30)):
            patch = draw(
                0, strength, -(-rows // block), -(-columns // block), 3
            )
            patch = patch.repeat(block, 0).repeat(block, 1)
            total = total + patch[:rows, :columns]
        return total.clip(0, 255).astype(np.uint8)

    nearness = np.sort(draw(3, reach + 1, BOARDS))
    # The ground goes on beyond the pictures' right edge.
    layers = [(1, 0, 0, texture(height, width + reach))]
    for disparity in nearness.tolist():
        rows, columns = (int(draw(size // 5, size // 2)) for _ in range(2))
        top = int(draw(0, height - rows))
        left = int(draw(0, width - columns))
        layers.append((disparity, top, left, texture(rows, columns)))
    views = []
    truth = np.zeros((height, width), np.float32)
    for eye in (0, 1):
        view = np.zeros((height, width, 3), np.uint8)
        for disparity, top, left, board in layers:
            start = left - eye * disparity
            end = min(start + board.shape[1], width)
            board = board[:, max(0, -start) : end - start]
            window = (
                slice(top, top + len(board)),
                slice(max(0, start), end),
            )
            view[window] = board
            if not eye:
                truth[window] = disparity
        views.append(view)
    return *views, truth


def write_pairs(
    out: str | Path,
    seed: int = 0,
    train: int = 640,
    val: int = 80,
    size: int = 96,
) -> None:
    """Write pairs for ``StereoFolder``.

    They are ``{train,val}/{left,right}/*.png`` and
    ``{train,val}/disparity/*.pfm``; the bytes depend on the arguments alone.

    Args:
        out: Folder to write, made if missing.
        seed: Seed of all numbers.
        train: Number of pairs to train with.
        val: Number of pairs to validate with.
        size: Height in pixels, at least 64; the width is twice that.

    Raises:
        UserError: A number or the size is not as above.
    """
    if min(train, val) < 1:
        raise UserError(
            f'got {train} and {val} pairs, expected at least 1 of each'
        )
    if size < MIN_SIZE:
        raise UserError(
            f'got pairs of {size} pixels, expected at least {MIN_SIZE}'
        )
    random = random_state(seed)
    for split, number in (('train', train), ('val', val)):
        folders = [
            Path(out, split, name) for name in ('left', 'right', 'disparity')
        ]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        for index in range(number):
            left, right, disparity = make_pair(random, size)
            name = f'{index:05d}'
            write_png(folders[0] / f'{name}.png', left)
            write_png(folders[1] / f'{name}.png', right)
            with whole(folders[2] / f'{name}.pfm') as partial:
                write_pfm(partial, disparity)
