# Copyright (c) mmseg_attn contributors.
"""Time what the host does for our operators on a GPU, without one.

All runs on the meta device, which computes nothing: what is left is Python
and torch's bookkeeping, the least time from call to call however fast the
card is. Of torch's own operators the meta device may take longer or less than
CUDA; launches themselves are not in it.

    python tools/benchmark/overhead.py
    python tools/benchmark/overhead.py --cases axial linear --dtype float32
"""

from __future__ import annotations

import argparse
import time

import cases
import torch
from options import positive
from report import print_table

from mmseg_attn.errors import run_command
from mmseg_attn.ops.core.device import counting
from mmseg_attn.ops.kernels import launch

CASES = [
    'criss_cross',
    'axial',
    'channelized_axial',
    'interlaced_sparse',
    'non_local',
    'efficient_8_heads',
    'linear',
    'channel_linear',
]


def microseconds(run, calls: int) -> float:
    """Of the processor in a call: the least of ten rounds."""
    run()
    rounds = []
    for _ in range(10):
        start = time.process_time()
        for _ in range(calls):
            run()
        rounds.append((time.process_time() - start) / calls)
    return 1e6 * min(rounds)


def measure(case: str, dtype: torch.dtype, calls: int) -> list[float]:
    """Microseconds of a forward, and of a forward and backward."""
    ours = next(cases.CASES[case](2, 97, 97, 512, dtype=dtype, device='meta'))
    ours.grad = torch.empty_like(ours.forward())

    def both():
        ours.backward(ours.forward())

    return [microseconds(run, calls) for run in (ours.forward, both)]


def parse_args(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        '--cases', nargs='+', choices=cases.CASES, default=CASES
    )
    parser.add_argument(
        '--dtype', choices=('bfloat16', 'float16', 'float32'),
        default='bfloat16',
    )  # fmt: skip
    parser.add_argument('--calls', type=positive, default=100)
    return parser.parse_args(arguments)


def main(arguments=None):
    args = parse_args(arguments)
    if launch.triton is None:
        raise SystemExit('kernels of ours are timed: pip install triton')
    with counting():
        rows = [
            (name, measure(name, getattr(torch, args.dtype), args.calls))
            for name in args.cases
        ]
    print_table(
        f'microseconds of the host in a call, 2x97x97, {args.dtype}',
        ['case', 'forward', 'forward + backward'],
        [[name, *(f'{x:.0f}' for x in times)] for name, times in rows],
    )


if __name__ == '__main__':
    run_command(main)
