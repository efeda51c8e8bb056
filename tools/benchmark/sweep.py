# Copyright (c) mmseg_attn contributors.
"""Time tiles of the kernels: the table's, and others by one change at a time.

Of a family of kernels, the fastest tile's neighbours are tried until none is
faster or the time is up. Each is first compared with the torch backend.

    python tools/benchmark/sweep.py --dtype bfloat16 --out sweep
    python tools/benchmark/sweep.py --case interlaced_sparse --dtype float16
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from functools import partial

import torch
from cases import CASES
from machine import prepare
from measure import Contestant, one_line, time_in_turns, verify
from options import parser, positive, size
from report import save_table
from run import TOLERANCE
from trials import deterministic

from mmseg_attn.errors import run_command
from mmseg_attn.ops.kernels import tiles
from mmseg_attn.ops.kernels.tiles import Tile

SIZES = '2x97x97 1x128x256 1x256x512'
# Powers of two from the least to the most that are tried.
RANGES = dict(M=(16, 128), N=(16, 128), C=(32, 512), warps=(4, 8))
STAGES = range(1, 5)
# Those of the deterministic mode.
ORDERED = 'scores', 'values'
NOTE = (
    'Medians of the forward (of other families: forward and backward), on a '
    "GPU as a CUDA graph behind a cold L2; times the table's: the geometric "
    'mean over the sizes, below 1 the tile is faster. A tile: rows of its '
    'own, rows that pass by, channels, warps, stages, TMA, one launch for '
    'both axes.'
)
# Of larger tiles the kernel for both axes spills.
ONE_LAUNCH = Tile(64, 64, 128, 4, 2, together=True)


def neighbours(tile: Tile) -> Iterator[Tile]:
    """Tiles that differ in one thing."""
    for name, (least, most) in RANGES.items():
        for value in (getattr(tile, name) // 2, getattr(tile, name) * 2):
            if least <= value <= most:
                yield tile._replace(**{name: value})
    for stages in (tile.stages - 1, tile.stages + 1):
        if stages in STAGES:
            yield tile._replace(stages=stages)
    if not tile.together:
        yield tile._replace(tma=not tile.tma)


def parse_args(arguments=None):
    result = parser(__doc__)
    result.set_defaults(repeat=10)
    result.add_argument(
        '--case',
        default='criss_cross',
        choices=['criss_cross', 'axial', 'interlaced_sparse'],
    )
    result.add_argument(
        '--families',
        nargs='+',
        default=['forward', 'backward'],
        choices=tiles.FAMILIES,
    )
    result.add_argument('--sizes', nargs='+', type=size, default=SIZES.split())
    result.add_argument(
        '--seconds', type=float, default=86400, help='for all families'
    )
    result.add_argument(
        '--workers', type=positive, default=1, help='processes that compile'
    )
    return result.parse_args(arguments)


def ours(shape, args, backend, batch=None):
    """Our contestant of the case by a backend."""
    torch.manual_seed(0)
    sizes = [*map(int, shape.split('x')), args.channels]
    sizes[0] = batch or sizes[0]
    kwargs = dict(dtype=getattr(torch, args.dtype), device=args.device)
    found = next(CASES[args.case](*sizes, **kwargs))
    function = partial(found.function, backend=backend)
    return Contestant(backend, function, found.inputs, found.to_common)


def table_tile(family, args) -> Tile:
    """What the table has for the case's widths, not cut to a line."""
    query, _, value, *_ = ours('1x1x1', args, 'triton').inputs
    return tiles.tile_of(
        family,
        query.device,
        query.element_size(),
        query.shape[-1],
        value.shape[-1],
        2**30,
    )


def mode(family):
    return deterministic() if family in ORDERED else nullcontext()


def compile_tile(tile, family, args):
    """Leave its kernels in Triton's cache; on one picture of each size."""
    with mode(family), tiles.chosen(family, tile):
        for shape in args.sizes:
            try:
                ours(shape, args, 'triton', batch=1).results()
            except Exception:
                break  # the measurement says why
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # other processes share the card


def measured(tile, family, args, truth) -> dict:
    """Shape -> seconds, or a note."""
    kind = 'forward' if family == 'forward' else 'total'
    seconds = {}
    dtype = 'tf32' if args.tf32 else getattr(torch, args.dtype)
    with mode(family), tiles.chosen(family, tile):
        for shape in args.sizes:
            contestant = ours(shape, args, 'triton')
            try:
                verify(contestant, truth[shape], TOLERANCE[dtype])
                found = time_in_turns([contestant], args.repeat, 1)['triton']
            except Exception as error:  # too large a tile, or a wrong one
                return dict(note=one_line(error))
            timed = found.get(f'graph {kind}', found[kind])
            seconds[shape] = timed['median']
    return seconds


def sweep(family, args, truth, end, pool=None) -> dict[Tile, dict]:
    """Tile -> its measurement, the table's first."""
    tried = {}
    first = table_tile(family, args)
    fresh = [first, *neighbours(first)]
    if family == 'forward' and args.case == 'criss_cross':
        fresh.insert(1, ONE_LAUNCH)
    while fresh:
        print(family, len(fresh), 'tiles', file=sys.stderr, flush=True)
        if pool:
            work = partial(compile_tile, family=family, args=args)
            pool.map(work, fresh, chunksize=1)
        for tile in fresh:
            if tried and time.monotonic() > end:
                return tried
            tried[tile] = measured(tile, family, args, truth)
        if 'note' in tried[first]:
            return tried
        right = [tile for tile in tried if 'note' not in tried[tile]]
        best = min(right, key=lambda tile: share(tried[tile], tried[first]))
        fresh = [tile for tile in neighbours(best) if tile not in tried]
    return tried


def share(seconds: dict, base: dict) -> float:
    """Geometric mean of the ratios over the sizes."""
    ratios = (seconds[shape] / base[shape] for shape in base)
    return math.exp(statistics.fmean(map(math.log, ratios)))


def lines(family, tried, args) -> list[list[str]]:
    """Of the table, the fastest first."""
    first, *_ = tried.values()
    body = []
    for tile, found in tried.items():
        text = ' '.join(str(int(part)) for part in tile)
        if 'note' in found or 'note' in first:
            note = found.get('note', 'the tile of the table failed')
            body.append((math.inf, [family, text, note]))
            continue
        ratio = share(found, first)
        times = [f'{1e3 * found[shape]:.4f}' for shape in args.sizes]
        body.append((ratio, [family, text, f'{ratio:.3f}', *times]))
    return [cells for _, cells in sorted(body)]


def main(arguments=None):
    args = parse_args(arguments)
    info = {**prepare(args), 'case': args.case, 'channels': args.channels}
    truth = {s: ours(s, args, 'torch').results() for s in args.sizes}
    start = time.monotonic()
    body, rows = [], []
    with ExitStack() as stack:
        pool = None
        if args.workers > 1:
            context = multiprocessing.get_context('spawn')
            pool = stack.enter_context(context.Pool(args.workers))
        for i, family in enumerate(args.families):
            part = (i + 1) / len(args.families)
            end = start + args.seconds * part
            tried = sweep(family, args, truth, end, pool)
            body += lines(family, tried, args)
            rows += [
                dict(family=family, tile=tile._asdict(), found=found)
                for tile, found in tried.items()
            ]
    header = ['family', 'tile', "times the table's"]
    header += [f'{shape} ms' for shape in args.sizes]
    data = dict(machine=info, rows=rows)
    save_table(header, body, NOTE, data, args.out, 'sweep')
    if any('note' in rows[i]['found'] for i in _firsts(rows)):
        raise SystemExit("a tile of the table failed: see the table's notes")


def _firsts(rows):
    families = [row['family'] for row in rows]
    return [families.index(family) for family in dict.fromkeys(families)]


if __name__ == '__main__':
    run_command(main)
