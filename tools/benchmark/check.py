# Copyright (c) mmseg_attn contributors.
"""Check all operators and layers on a device.

Each operator's declared cases and the benchmark's sizes, in each dtype and
backend, with TF32 off and on by both of torch's switches, against float64.
Prints a line for what is wrong; the exit status is then 3, or 4 if it is
wrong by more than rounding. Writes check.md and check.json.

    python tools/benchmark/check.py --out check
    TRITON_INTERPRET=1 python tools/benchmark/check.py --device cpu \\
        --sizes 1x5x18 --channels 64
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from functools import partial

import torch
from cases import CASES
from machine import describe
from options import device, folder, positive, size
from report import about, markdown, write
from trials import SWITCHES, Job, Result, run

from mmseg_attn import layers
from mmseg_attn.errors import run_command
from mmseg_attn.ops.declare import OPERATORS

SIZES = '2x97x97 1x128x256 1x256x512'
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
HEADER = ['what', 'dtype', 'TF32 by', 'trials', 'wrong', 'of the bound']
NOTE = (
    'Error against float64 on the same rounded numbers, output and all '
    "gradients; bound: so many times the reference's (benchmark's sizes: the "
    "first peer's) own error in the dtype as the operator declares, beside a "
    "few times the dtype's spacing. Of the bound: what the worst trial "
    "reaches. Fresh buffers held NaN; in torch's deterministic mode a second "
    'run gave the same bits.'
)


def jobs(sizes) -> Iterator[Job]:
    """What is to be checked, the small before the large."""
    for name, declared in OPERATORS.items():
        for dtype in declared.dtypes:
            for switch in switches(dtype):
                yield Job('operator', name, dtype, switch)
    for name in layers.__all__:
        for dtype in DTYPES:
            for switch in switches(dtype):
                yield Job('layer', name, dtype, switch)
    for shape in sizes:
        for case in CASES:
            for dtype in DTYPES:
                for switch in switches(dtype)[:2]:
                    yield Job('benchmark', case, dtype, switch, shape)


def _name(dtype):
    return str(dtype).removeprefix('torch.')


def switches(dtype):
    return SWITCHES if dtype == torch.float32 else SWITCHES[:1]


def parse_args(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        '--device',
        type=device,
        default='cuda' if torch.cuda.is_available() else 'cpu',
    )
    parser.add_argument('--sizes', nargs='*', type=size, default=SIZES.split())
    parser.add_argument('--channels', type=positive, default=512)
    parser.add_argument(
        '--only',
        nargs='+',
        help='names of operators, layers and cases',
    )
    parser.add_argument(
        '--dtypes',
        nargs='+',
        choices=[_name(dtype) for dtype in [torch.float64, *DTYPES]],
    )
    parser.add_argument(
        '--workers', type=positive, default=1, help='processes on the device'
    )
    parser.add_argument(
        '--seconds',
        type=float,
        default=86400,
        help='what is not done by then is left out, and said so',
    )
    parser.add_argument('--out', type=folder, help='folder for the results')
    return parser.parse_args(arguments)


def done(wanted, args) -> Iterator[tuple[Job, list[Result]]]:
    """Jobs as they are done, until the time is up."""
    work = partial(_work, device=args.device, channels=args.channels)
    end = time.monotonic() + args.seconds
    if args.workers == 1:
        for job in wanted:
            if time.monotonic() > end:
                return
            yield work(job)
        return
    again = []
    with multiprocessing.get_context('spawn').Pool(args.workers) as pool:
        found = pool.imap_unordered(work, wanted)
        for _ in wanted:
            try:
                job, results = found.next(max(0.0, end - time.monotonic()))
            except multiprocessing.TimeoutError:
                return
            if any('out of memory' in r.problem for r in results):
                again.append(job)
            else:
                yield job, results
    yield from map(work, again)  # with the card for themselves


def _work(job, device, channels):
    results = run(job, device, channels)
    if device == 'cuda':
        torch.cuda.empty_cache()  # other processes share the card
    return job, results


def rows(found) -> list[list[str]]:
    """Lines of the table: an operator, case or layer in a dtype."""
    body = []
    for job, results in found:
        if results:
            wrong = sum(bool(r.problem) for r in results)
            worst = max(r.share for r in results)
            name = f'{job.name} {job.size}'.strip()
            cells = [name, _name(job.dtype), job.tf32]
            body.append(
                [*cells, str(len(results)), str(wrong), f'{worst:.2f}']
            )
    return sorted(body)


def save(found, left, info, out):
    """Write check.md and check.json to a folder."""
    results = [r for _, some in found for r in some]
    wrong = [f'- {r.label}: {r.problem}' for r in results if r.problem]
    left = [f'- not done: {job}' for job in left]
    text = f'{about(info)}.\n\n{NOTE}\n\n{markdown(HEADER, rows(found))}'
    write(out / 'check.md', '\n'.join([text, *wrong, *left]).strip() + '\n')
    data = dict(machine=info, results=[r._asdict() for r in results])
    write(out / 'check.json', json.dumps(data, indent=1) + '\n')


def main(arguments=None):
    args = parse_args(arguments)
    # What cuBLAS wants for the deterministic mode.
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    info = describe(args.device)
    print(about(info), flush=True)
    start = time.monotonic()
    wanted = [
        job
        for job in jobs(args.sizes)
        if job.name in (args.only or [job.name])
        and _name(job.dtype) in (args.dtypes or [_name(job.dtype)])
    ]
    found, left = [], set(wanted)
    for job, results in done(wanted, args):
        found.append((job, results))
        left.remove(job)
        for result in results:
            if result.problem:
                print(f'WRONG {result.label}: {result.problem}', flush=True)
    for job in left:
        print(f'not done within {args.seconds:.0f} s: {job}')
    results = [r for _, some in found for r in some]
    if args.out:
        save(found, left, info, args.out)
    wrong = [r for r in results if r.problem]
    print(
        f'{len(results)} trials, {len(wrong)} wrong, {len(left)} jobs not '
        f'done, {time.monotonic() - start:.0f} s'
    )
    if wrong or not results:
        grave = not results or any(r.grave for r in wrong)
        raise SystemExit(4 if grave else 3)


if __name__ == '__main__':
    run_command(main)
