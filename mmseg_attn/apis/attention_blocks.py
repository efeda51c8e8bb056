# Copyright (c) mmseg_attn contributors.
"""Where all positions of a picture look, in few bytes."""

import zlib
from base64 import b64encode

import numpy as np

from ..visualization.attention import loop_titles, reach
from .tracing import Recording

# Maps that are traced at a time.
CHUNK = 256
# Shares that a browser unpacks of a picture, a byte each.
MOST_SHARES = 64_000_000


def pack_maps(recording: Recording, budget: int) -> dict:
    """Pack the maps of all positions and loops.

    Where they are too large, ``step`` x ``step`` cells become a block: the map
    of its middle cell stands for all positions in it, and a map gives the
    sums over blocks.

    A share is stored as the square root of its part of the map's largest one,
    in 255 levels: ``round(255 * sqrt(share / largest))``. A position's map is
    stored as the difference to that of the position before, modulo 256.

    Args:
        recording: The runs of the layers.
        budget: How many characters the packed maps may have. They have as
            many as they need for one block, if that is more.

    Returns:
        For JSON: ``step``; ``blocks``, rows and columns of blocks of a map;
        ``rows`` and ``columns``, the block of each row and column of the
        picture; ``cells``, those of the map; and ``loops``, each with
        ``title``, ``positions`` (rows and columns of positions), their
        ``rows`` and ``columns``, ``maps`` (uint8, position after position,
        deflated, base64) and ``facts`` (float32: of each map its largest
        share, how few cells hold 90 % of it, and its sum; the same way).
    """
    titles = loop_titles(recording.layers)
    cells = recording.shape(0)
    for step in range(1, max(cells) + 1):
        room, loops = budget, []
        blocks = _Blocks(recording, 0, step)
        positions = sum(
            len(_Blocks(recording, loop, step).middles)
            for loop in range(len(titles))
        )
        if positions * len(blocks.middles) > MOST_SHARES:
            continue
        # The last is the fullest: it says soonest that there is no room.
        for loop in reversed(range(len(titles))):
            least = step == max(cells)
            found = _pack_loop(recording, loop, step, None if least else room)
            if found is None:
                break
            room -= len(found['maps']) + len(found['facts'])
            loops.insert(0, dict(title=titles[loop], **found))
        else:
            break
    return dict(
        step=step,
        cells=cells,
        blocks=blocks.shape,
        rows=blocks.rows,
        columns=blocks.columns,
        loops=loops,
    )


class _Blocks:
    """The cells of a loop in blocks."""

    def __init__(self, recording: Recording, loop: int, step: int) -> None:
        height, width = recording.shape(loop)
        # Blocks of a coarser map are of the same size in the picture.
        step = max(1, step * height // recording.shape(0)[0])
        self.shape = -(-height // step), -(-width // step)
        self.middles = [
            (min(row, height - 1), min(column, width - 1))
            for row in range(step // 2, self.shape[0] * step, step)
            for column in range(step // 2, self.shape[1] * step, step)
        ]
        rows, columns = recording.grid(loop)
        self.rows = (rows // step).tolist()
        self.columns = (columns // step).tolist()


def _pack_loop(
    recording: Recording, loop: int, step: int, budget: int | None
) -> dict | None:
    """Pack the maps of one loop; None if they do not fit."""
    positions = _Blocks(recording, loop, step)
    cells = len(_Blocks(recording, 0, step).middles)
    budget = np.inf if budget is None else budget * 3 / 4  # of bytes
    packer, packed, facts = zlib.compressobj(9), b'', []
    before = np.zeros((1, cells), np.uint8)
    for start in range(0, len(positions.middles), CHUNK):
        maps = recording.maps(loop, positions.middles[start : start + CHUNK])
        sums = _block_sums(maps, step)
        largest = sums.max(1, keepdims=True)
        parts = sums / np.maximum(largest, np.finfo(np.float32).tiny)
        levels = np.rint(255 * np.sqrt(parts)).astype(np.uint8)
        differences = np.diff(levels, axis=0, prepend=before)
        before = levels[-1:]
        packed += packer.compress(differences.tobytes())
        facts += [
            (top, reach(each), each.sum())
            for top, each in zip(largest[:, 0], maps, strict=True)
        ]
        if len(packed) + 12 * len(facts) > budget:
            return None
    packed += packer.flush()
    known = zlib.compress(np.array(facts, '<f4').tobytes(), 9)
    if len(packed) + len(known) > budget:
        return None
    return dict(
        positions=positions.shape,
        rows=positions.rows,
        columns=positions.columns,
        maps=b64encode(packed).decode(),
        facts=b64encode(known).decode(),
    )


def _block_sums(maps: np.ndarray, step: int) -> np.ndarray:
    """Sum (K, h, w) over blocks; (K, blocks)."""
    for axis in (1, 2):
        starts = np.arange(0, maps.shape[axis], step)
        maps = np.add.reduceat(maps, starts, axis)
    return maps.reshape(len(maps), -1)
