# Copyright (c) mmseg_attn contributors.
"""Benchmark our operators and layers against their peers.

For each size: check that all give the same output and gradients, then time
forward and forward+backward in turns and measure memory. Prints a table;
writes benchmark.json, benchmark.md, overview.png and a plot of each case
after each case, so that a crash loses no more than one.

    python tools/benchmark/run.py --out benchmark
    python tools/benchmark/run.py --cases axial --sizes 1x128x256 2x97x97
    python tools/benchmark/run.py --base HEAD~1 --cases criss_cross
"""

from __future__ import annotations

import argparse
import platform
import re
from contextlib import nullcontext
from pathlib import Path

import torch
from base import base
from cases import CASES
from measure import (
    Skipped,
    machine_peaks,
    roofline_seconds,
    time_in_turns,
    verify,
)
from report import HEADER, about, lines, pixels, save
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

SIZES = '1x32x32 1x64x64 1x97x97 2x97x97 1x128x128 1x128x256 1x256x512'
# Largest error as a part of the largest value.
TOLERANCE = {
    torch.float32: 1e-4,
    torch.float16: 2e-2,
    torch.bfloat16: 5e-2,
}


def size(text):
    """Check an argument BxHxW."""
    if re.fullmatch(r'[1-9]\d*(x[1-9]\d*){2}', text):
        return text
    raise argparse.ArgumentTypeError(f'{text!r} is not like 2x97x97 (BxHxW)')


def parser(doc):
    """Options that crossover.py shares."""
    result = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawTextHelpFormatter
    )
    result.add_argument('--channels', type=int, default=512)
    result.add_argument(
        '--dtype',
        default='float32',
        choices=['float32', 'float16', 'bfloat16'],
    )
    result.add_argument(
        '--device', default='cuda' if torch.cuda.is_available() else 'cpu'
    )
    result.add_argument('--threads', type=int, help='CPU threads')
    result.add_argument('--repeat', type=int, default=30, help='most rounds')
    result.add_argument('--out', type=Path, help='folder for the results')
    return result


def parse_args(arguments=None):
    result = parser(__doc__)
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
    result.add_argument('--base', metavar='REV', help='git revision')
    return result.parse_args(arguments)


def setup(args):
    """Apply the options; describe the machine, with its measured peaks."""
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    dtype = getattr(torch, args.dtype)
    peaks = machine_peaks(args.device, dtype)
    device = (
        torch.cuda.get_device_name()
        if args.device == 'cuda'
        else f'{platform.machine()}, {torch.get_num_threads()} threads, '
        f'{torch.backends.cpu.get_cpu_capability()}'
    )
    info = {
        'device': device,
        'torch': torch.__version__,
        'dtype': args.dtype,
        'channels': args.channels,
        'peak GFLOP/s': round(peaks[0] / 1e9),
        'peak GB/s': round(peaks[1] / 1e9, 1),
    }
    return dtype, peaks, info


def wide_console():
    """A console as wide as the table where no terminal sets the width."""
    console = Console()
    return console if console.is_terminal else Console(width=180)


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

    def measure(self, case, size):
        """Rows of one case at one size, ours first."""
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
                    return [row]
        del expected
        times = time_in_turns(fit, self.args.repeat, self.args.budget)
        least = work and roofline_seconds(work, self.peaks)
        for name, summary in times.items():
            share = work and least / summary['forward']['median']
            rows[name].update(summary, roofline=share)
            self.last[case, name] = size, summary['total']['median']
        return list(rows.values())

    def _offers(self, case, size):
        torch.manual_seed(0)
        sizes = *map(int, size.split('x')), self.args.channels
        kwargs = dict(dtype=self.dtype, device=self.args.device)
        try:
            offers = _fitting(lambda: list(CASES[case](*sizes, **kwargs)))
        except Left as reason:
            return [Skipped('ours', str(reason))]
        if self.at_base:
            offers.insert(1, self.at_base(offers[0]))
        return offers

    def _check_time(self, case, size, offer):
        if isinstance(offer, Skipped):
            raise Left(offer.reason)
        before, seconds = self.last.get((case, offer.name), (size, 0))
        if seconds * pixels(size) / pixels(before) > self.args.limit:
            raise Left(f'took {seconds:.1f} s at {before}: too long here')

    def _verify(self, offer, expected):
        tolerance = TOLERANCE[self.dtype]
        try:
            _fitting(lambda: verify(offer, expected, tolerance))
        except AssertionError as error:
            self.wrong = True
            raise Left(str(error)) from None
        except RuntimeError as error:
            # mmcv's layer fails in bf16; a revision may lack the operator.
            raise Left(f'fails: {str(error).splitlines()[0]}') from None


def _fitting(function):
    """The function's result, or Left if there is not enough memory."""
    try:
        return function()
    except RuntimeError as error:
        if 'memory' in str(error):
            raise Left('out of memory') from None
        raise


def main(arguments=None):
    args = parse_args(arguments)
    console = wide_console()
    with base(args.base) if args.base else nullcontext() as at_base:
        dtype, peaks, info = setup(args)
        runner = Runner(args, dtype, peaks, at_base)
        sizes = sorted(args.sizes, key=pixels)
        rows = []
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task('', total=len(args.cases) * len(sizes))
            for case in args.cases:
                for size in sizes:
                    progress.update(task, description=f'{case} {size}')
                    rows += runner.measure(case, size)
                    progress.advance(task)
                if args.out:
                    save(rows, info, args.out)
    table = Table(*HEADER, title=about(info))
    for line in lines(rows):
        table.add_row(*line)
    console.print(table)
    if runner.wrong:
        raise SystemExit('some contestants differ from ours: see the table')


if __name__ == '__main__':
    main()
