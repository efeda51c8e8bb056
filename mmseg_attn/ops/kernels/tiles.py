# Copyright (c) mmseg_attn contributors.
"""Which tiles the kernels take, by card and shape.

Timed were the first backward tile of sm_90 and its neighbours, on an H100 in
bf16 with keys of 64 and values of 512 channels (tools/benchmark/sweep.py): two
stages took 0.88 of the time of one, although a thread then spills 8 bytes. All
others are from the registers, spills and shared memory of the kernels compiled
for each card (tools/benchmark/offline.py), not from time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

import torch

from ..core.device import capability, tf32_is_allowed
from . import launch

FAMILIES = ('forward', 'backward', 'scores', 'values')


class Tile(NamedTuple):
    """How a kernel divides its work.

    Args:
        M: Rows of a line that a program has.
        N: Rows that pass by at a time.
        C: Channels of the value that a program has, or takes at a time.
        warps: Warps of a program.
        stages: Tiles under way at a time.
        tma: Whether whole tiles are fetched by the tensor memory accelerator,
            where the rows allow it.
        together: Whether the forward along both axes of pictures is one
            launch, which knows no tma.
    """

    M: int
    N: int
    C: int
    warps: int = 4
    stages: int = 2
    tma: bool = False
    together: bool = False


_chosen: dict[str, Tile] = {}


@contextmanager
def chosen(family: str, tile: Tile) -> Iterator[None]:
    """Take this tile for a family, one of FAMILIES, to time it."""
    before = _chosen.copy()
    _chosen[family] = tile
    try:
        yield
    finally:
        _chosen.clear()
        _chosen.update(before)


def power(n: int) -> int:
    """The next power of two that is a size of a product."""
    return max(16, launch.power(n))


def precision_of_fp32() -> str:
    """TF32 if it is allowed, else three such products of one."""
    return 'tf32' if tf32_is_allowed() else 'tf32x3'


@lru_cache
def card_of(device: torch.device) -> tuple[int, int]:
    """(compute capability times 10, KiB of shared memory of a program).

    Without a card, as when costs are counted, an H100's.
    """
    if device.type != 'cuda':
        return 90, 227
    major, minor = capability(device)
    properties = torch.cuda.get_device_properties(device)
    # An older torch does not tell the memory.
    kib = getattr(properties, 'shared_memory_per_block_optin', 99 * 2**10)
    return major * 10 + minor, kib // 2**10


# (family, bytes of an element, widest key) -> tiles by the generation of the
# card: 9 for sm_90, 10 for sm_100, and 0 for all others, whose shared memory
# may be 99 KiB (sm_86, sm_89, sm_120).
TABLE = {
    ('forward', 2, 64): {
        9: Tile(64, 64, 512, 8, 2, tma=True),
        10: Tile(64, 64, 256, 4, 2, tma=True),
        0: Tile(64, 64, 128, 4, 2),
    },
    ('forward', 2, 128): {
        9: Tile(64, 64, 128, 4, 2),
        10: Tile(64, 64, 128, 4, 2),
        0: Tile(64, 64, 128, 8, 1),
    },
    ('forward', 2, 256): {
        9: Tile(32, 64, 512, 8, 1),
        10: Tile(32, 64, 512, 8, 1),
        0: Tile(64, 32, 128, 4, 1),
    },
    ('forward', 4, 64): {
        9: Tile(32, 32, 256, 8, 1),
        10: Tile(64, 32, 128, 4, 2, tma=True),
        0: Tile(64, 32, 128, 8, 2),
    },
    ('forward', 4, 128): {0: Tile(32, 32, 64, 4, 1)},
    ('backward', 2, 64): {
        9: Tile(64, 32, 256, 8, 2, tma=True),
        10: Tile(64, 32, 256, 8, 1, tma=True),
        0: Tile(64, 32, 128, 8, 2),
    },
    ('backward', 2, 128): {
        9: Tile(64, 32, 128, 8, 2),
        10: Tile(64, 32, 128, 8, 2),
        0: Tile(32, 32, 128, 8, 1),
    },
    ('backward', 2, 256): {
        9: Tile(16, 32, 512, 8, 1),
        10: Tile(16, 32, 512, 8, 1),
        0: Tile(32, 16, 64, 8, 1),
    },
    ('backward', 4, 64): {
        9: Tile(32, 16, 128, 8, 1),
        10: Tile(64, 16, 64, 8, 1),
        0: Tile(32, 32, 64, 8, 1),
    },
    ('backward', 4, 128): {0: Tile(16, 16, 64, 4, 1)},
    ('scores', 2, 64): {0: Tile(64, 64, 32, 4, 2)},
    ('scores', 2, 128): {0: Tile(64, 32, 32, 8, 1)},
    ('scores', 2, 256): {0: Tile(32, 32, 32, 8, 1)},
    ('scores', 4, 64): {0: Tile(32, 32, 32, 4, 2)},
    ('scores', 4, 128): {0: Tile(16, 16, 32, 4, 1)},
    ('values', 2, 64): {0: Tile(64, 64, 128, 4, 2)},
    ('values', 2, 128): {0: Tile(64, 32, 128, 8, 1)},
    ('values', 2, 256): {0: Tile(64, 32, 128, 8, 1)},
    ('values', 4, 64): {0: Tile(32, 32, 64, 4, 2)},
    ('values', 4, 128): {0: Tile(32, 32, 64, 4, 1)},
}


def tile_of(
    family: str,
    device: torch.device,
    itemsize: int,
    width: int,
    value_width: int,
    length: int,
) -> Tile:
    """The tile of a kernel, cut to the problem.

    Args:
        family: One of FAMILIES.
        device: Where it runs.
        itemsize: Bytes of an element.
        width, value_width: Widths of keys and values.
        length: Positions of a line.
    """
    card, given = card_of(device), _chosen.get(family)
    return _cut(family, card, given, itemsize, width, value_width, length)


@lru_cache(maxsize=1024)
def _cut(family, card, given, itemsize, width, value_width, length):
    capability, kib = card
    widest = max(64, power(width))
    found = TABLE[family, itemsize, widest]
    generation = capability // 10 if kib >= 160 else 0
    tile = given or found.get(generation, found[0])
    most = power(length)
    return tile._replace(
        M=min(tile.M, most),
        N=min(tile.N, most),
        C=min(tile.C, power(value_width)),
        tma=tile.tma and capability >= 90,
    )
