# Copyright (c) mmseg_attn contributors.
"""Benchmark our operators and layers against their peers.

For each size: check that all give the same output and gradients, then time
forward and forward+backward in turns and measure memory. Prints a table;
writes benchmark.json and benchmark.md after each size, so that a crash loses
no more than one, and at the end overview.png and a plot of each case, where
matplotlib is installed. Needs no more than torch, for the peers of
layers the hosts.

    python tools/benchmark/run.py --out benchmark
    python tools/benchmark/run.py --cases axial --sizes 1x128x256 2x97x97
    python tools/benchmark/run.py --base HEAD~1 --cases criss_cross
"""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext

import torch
from base import base
from cases import CASES
from further import PEERS
from machine import autocast, roofline_seconds, setup
from measure import Skipped, one_line, time_in_turns, verify
from options import add_amp, parser, size
from report import about, header, lines, pixels, print_table, save

from mmseg_attn.errors import run_command

SIZES = '1x32x32 1x64x64 1x97x97 2x97x97 1x128x128 1x128x256 1x256x512'
# Largest error as a part of the largest value, by the dtype of the products.
TOLERANCE = {
    torch.float32: 1e-4,
    'tf32': 1e-2,
    torch.float16: 2e-2,
    torch.bfloat16: 5e-2,
}


def parse_args(arguments=None):
    result = parser(__doc__)
    add_amp(result)
    result.add_argument(
        '--cases', nargs='+', choices=CASES, default=list(CASES)
    )
    result.add_argument(
        '--sizes',
        nargs='+',
        type=size,
        default=SIZES.split(),
        help=f'BxHxW ..., by default {SIZES}',
    )
    result.add_argument(
        '--budget',
        type=float,
        default=5,
        help='seconds of timing per case and size',
    )
    result.add_argument(
        '--limit',
        type=float,
        default=10,
        help='seconds: who would need more for one forward+backward,\n'
        'judged by the last smaller size, is left out',
    )
    result.add_argument(
        '--seconds',
        type=float,
        default=float('inf'),
        help='after so many no other case and size is begun',
    )
    result.add_argument(
        '--peers',
        nargs='*',
        choices=PEERS,
        help='further ones, by default all on a GPU and none on a CPU',
    )
    result.add_argument('--no-plots', action='store_true')
    result.add_argument('--base', metavar='REV', help='git revision')
    args = result.parse_args(arguments)
    if args.peers is None:
        cuda = torch.device(args.device).type == 'cuda'
        args.peers = list(PEERS) if cuda else []
    return args


class Left(Exception):
    """Why a contestant is left out at a size."""


class Runner:
    """Measures cases; remembers how long each contestant took.

    Args:
        args: The options.
        dtype: Of the inputs.
        peaks: FLOP/s and bytes/s of the machine.
        at_base: Ours -> the same at another revision, or None.
    """

    def __init__(self, args, dtype, peaks, at_base=None):
        self.args = args
        self.dtype = dtype
        self.peaks = peaks
        self.at_base = at_base
        self.last = {}
        self.wrong = False
        self.end = time.monotonic() + args.seconds

    def measure(self, case, size):
        """Rows of one case at one size, ours first."""
        if time.monotonic() > self.end:
            note = f'not begun within {self.args.seconds:.0f} s'
            return [dict(case=case, size=size, name='ours', note=note)]
        rows, fit = {}, []
        expected = work = None
        for offer in self._offers(case, size):
            row = rows[offer.name] = dict(
                case=case, size=size, name=offer.name
            )
            try:
                self._check_time(case, size, offer)
                if expected is None:
                    work, expected = offer.work, _fitting(offer.results)
                else:
                    self._verify(offer, expected)
                row['peak'], row['extra'] = _fitting(offer.memory)
                fit.append(offer)
            except Left as reason:
                row['note'] = str(reason)
                if offer.name == 'ours':
                    self.wrong |= row['note'].startswith('fails')
                    return [row]
        del expected
        times = time_in_turns(fit, self.args.repeat, self.args.budget)
        least = work and roofline_seconds(work, self.peaks)
        for name, summary in times.items():
            forward = summary.get('graph forward', summary['forward'])
            share = work and least / forward['median']
            rows[name].update(summary, roofline=share)
            self.last[case, name] = size, summary['total']['median']
        return list(rows.values())

    def _offers(self, case, size):
        torch.manual_seed(0)
        sizes = *map(int, size.split('x')), self.args.channels
        kwargs = dict(dtype=self.dtype, device=self.args.device)
        try:
            with autocast(self.args):
                offers = _fitting(lambda: self._list(case, sizes, kwargs))
        except Left as reason:
            return [Skipped('ours', str(reason))]
        if self.at_base:
            offers.insert(1, self.at_base(offers[0]))
        return offers

    def _list(self, case, sizes, kwargs):
        offers = list(CASES[case](*sizes, **kwargs))
        for name in self.args.peers:
            offers += list(PEERS[name](case, offers))
        return offers

    def _check_time(self, case, size, offer):
        if isinstance(offer, Skipped):
            raise Left(offer.reason)
        before, seconds = self.last.get((case, offer.name), (size, 0))
        if seconds * pixels(size) / pixels(before) > self.args.limit:
            raise Left(f'took {seconds:.1f} s at {before}: too long here')

    def _verify(self, offer, expected):
        dtype = offer.amp or self.dtype
        if dtype == torch.float32 and self.args.tf32:
            dtype = 'tf32'
        try:
            _fitting(lambda: verify(offer, expected, TOLERANCE[dtype]))
        except AssertionError as error:
            self.wrong = True
            raise Left(str(error)) from None


def _fitting(function):
    """The function's result, or Left: what fails shall not end the rest."""
    try:
        return function()
    except (AssertionError, Left):
        raise
    except Exception as error:
        if 'memory' in str(error):
            raise Left('out of memory') from None
        raise Left(f'fails: {one_line(error)}') from None


def main(arguments=None):
    args = parse_args(arguments)
    with base(args.base) if args.base else nullcontext() as at_base:
        dtype, peaks, info = setup(args)
        runner = Runner(args, dtype, peaks, at_base)
        rows = []
        for case in args.cases:
            for shape in sorted(args.sizes, key=pixels):
                print(case, shape, file=sys.stderr, flush=True)
                rows += runner.measure(case, shape)
                if args.out:
                    save(rows, info, args.out)
    print_table(about(info), header(rows), lines(rows))
    if args.out and not args.no_plots:
        _draw(rows, info, args.out)
    if runner.wrong:
        raise SystemExit('some contestants differ from ours: see the table')


def _draw(rows, info, out):
    try:
        from plots import draw
    except ImportError as error:
        print(f'no plots: {error}')
    else:
        draw(rows, info, out)


if __name__ == '__main__':
    run_command(main)
