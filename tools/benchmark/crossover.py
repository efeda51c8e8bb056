# Copyright (c) mmseg_attn contributors.
"""From which size on each operator is faster than dense attention.

Times forward+backward of each operator and of dense attention in turns, on
the same query, key and value, on square maps that grow. Dense attention is
the faster one of non_local_attention (torch's scaled_dot_product_attention)
and of a plain product, softmax, product. Below the crossover dense attention
wins.

    python tools/benchmark/crossover.py --out crossover
"""

from __future__ import annotations

import sys

import torch
from cases import CASES
from machine import setup
from measure import Contestant, as_it_is, time_in_turns, to_nchw
from options import parser
from peers import plain_non_local
from report import save_table

from mmseg_attn.errors import run_command
from mmseg_attn.ops import non_local_attention

SIDES = [4, 6, 8, 12, 16, 24, 32, 48, 64]
NAMES = [n for n in CASES if not n.endswith(('_layer', 'non_local'))]
NOTE = (
    'Forward+backward of the operator on a square map, as a multiple of that '
    'of dense attention at the same widths, by the side of the map, one '
    'picture; below 1 the operator is faster. Dense is the faster one of '
    'scaled_dot_product_attention and of product, softmax, product. '
    'Interlaced sparse is both halves; channel linear, which has no query '
    'and key, is compared with a map that attends to itself.'
)


def parse_args(arguments=None):
    result = parser(__doc__)
    result.add_argument('--sides', nargs='+', type=int, default=SIDES)
    result.add_argument(
        '--budget',
        type=float,
        default=2,
        help='seconds of timing per operator and size',
    )
    return result.parse_args(arguments)


def ratio(name, side, args, dtype):
    """Time of the operator divided by that of the faster dense attention."""
    torch.manual_seed(0)
    sizes = 1, side, side, args.channels
    ours = next(CASES[name](*sizes, dtype=dtype, device=args.device))
    qkv = (ours.inputs * 3)[:3]
    # (B * heads, dim, H, W)
    heads = [x.permute(0, 3, 4, 1, 2).flatten(0, 1).contiguous() for x in qkv]
    contestants = [
        ours,
        Contestant('SDPA', non_local_attention, qkv, to_nchw),
        Contestant('plain', plain_non_local, heads, as_it_is),
    ]
    for contestant in contestants:
        contestant.results()  # warm up
    times = time_in_turns(contestants, args.repeat, args.budget)
    ours, *dense = (t['total']['median'] for t in times.values())
    return ours / min(dense)


def crossover(ratios):
    """The smallest side from which on all ratios are below 1, or None.

    Args:
        ratios: side -> ratio.
    """
    result = None
    for side in sorted(ratios, reverse=True):
        if ratios[side] >= 1:
            break
        result = side
    return result


def main(arguments=None):
    args = parse_args(arguments)
    dtype, _, info = setup(args)
    sides = sorted(args.sides)
    found = {name: {} for name in NAMES}
    for name in NAMES:
        for side in sides:
            print(f'{name} {side}x{side}', file=sys.stderr, flush=True)
            found[name][side] = ratio(name, side, args, dtype)
    header = ['operator', 'faster from', *(f'{s}x{s}' for s in sides)]
    body = []
    for name, ratios in found.items():
        side = crossover(ratios)
        first = f'{side}x{side}' if side else f'above {sides[-1]}x{sides[-1]}'
        body.append([name, first, *(f'{r:.2f}' for r in ratios.values())])
    data = dict(machine=info, ratios=found)
    save_table(header, body, NOTE, data, args.out, 'crossover')


if __name__ == '__main__':
    run_command(main)
