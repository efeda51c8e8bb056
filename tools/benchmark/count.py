# Copyright (c) mmseg_attn contributors.
"""Count what our operators and layers, and their peers, cost on a GPU.

No GPU is needed: all runs on the meta device, which has shapes and no
numbers. For each case, size and dtype: launches, bytes, floating point
operations and memory of a forward and backward, and a time predicted from
these. A model, not a measurement: it knows no caches, no latency of a launch,
and takes each kernel to reach the rates of the table below. Peers are those
of run.py and torch's fused attention; what torch.compile makes of them cannot
be counted. Fails if ours is predicted slower than a peer.

    python tools/benchmark/count.py --out counted
    python tools/benchmark/count.py --cases axial --sizes 1x128x256 --calls 5
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections import Counter
from unittest import mock

import cases
import further
import torch
from counter import counted
from measure import Skipped, one_line
from options import folder, positive, size
from report import print_table, save_table

from mmseg_attn.errors import run_command
from mmseg_attn.ops.kernels import launch

SIZES = '2x97x97 1x128x256 1x256x512'
DTYPES = 'bfloat16 float16 float32'
# What an H100 is taken to reach, which is about 3/4 of what its data sheet
# says of its memory (3.35 TB/s), 2/3 of 16-bit products (989 TFLOP/s; torch's
# fused attention half of that) and of fp32 without TF32 (67 TFLOP/s). Flash
# attention was timed at 314 and, in the backward, 278 TFLOP/s, the wide one as
# below: results/h100, non-local at 2x97x97.
MEMORY = 80e9
BYTES_PER_SECOND = 2.5e12
FLOPS_PER_SECOND = {
    'product bfloat16': 600e12,
    'product float16': 600e12,
    'product float32': 45e12,
    'attention bfloat16': 300e12,
    'attention float16': 300e12,
    'wide attention bfloat16': 87e12,
    'wide attention float16': 87e12,
    'wide attention backward bfloat16': 14e12,
    'wide attention backward float16': 14e12,
    'attention float32': 45e12,
    'kernel bfloat16': 300e12,
    'kernel float16': 300e12,
    'kernel float32': 45e12,
    'kernel tf32x3 float32': 50e12,
}
HEADER = [
    'case',
    'BxHxW',
    'dtype',
    'contestant',
    'launches',
    'MB',
    'GFLOP',
    'extra MiB',
    'predicted us',
    'x ours',
]
NOTE = (
    'Counted, not timed. Forward + backward. Launches: calls of torch and '
    'kernels of ours that are no views. MB (1e6 bytes): each tensor that a '
    'launch reads or writes, once. GFLOP: of the products. Extra memory: at '
    'the peak, beyond the output and the gradients. Predicted: bytes at '
    f'{BYTES_PER_SECOND / 1e12} TB/s, plus operations at '
    + ', '.join(f'{r / 1e12:.0f} ({k})' for k, r in FLOPS_PER_SECOND.items())
    + ' TFLOP/s: a model of an H100. x ours: above 1 is slower than ours.'
)


def seconds(costs) -> float:
    """Predicted for counted costs."""
    work = costs.flops.items()
    return costs.bytes / BYTES_PER_SECOND + sum(
        number / FLOPS_PER_SECOND[kind] for kind, number in work
    )


def count(contestant) -> dict:
    """Figures of a forward and backward of a contestant on meta."""
    with counted() as costs:
        out = contestant.forward()
    forward = len(costs.calls)
    contestant.grad = torch.empty(
        out.shape, dtype=out.dtype, device=out.device
    )
    with counted(costs):
        grads = contestant.backward(out)
    results = sum(x.nbytes for x in (out, *grads))
    given = sum(x.nbytes for x in (*contestant.inputs, *contestant.parameters))
    return dict(
        launches=[forward, len(costs.calls) - forward],
        bytes=costs.bytes,
        flops=costs.flops,
        extra=costs.peak - results,
        needed=results + given,
        seconds=seconds(costs),
        calls=costs.calls,
    )


def measure(case, size, dtype, channels=512) -> list[dict]:
    """Rows of a case, ours first; of what does not run, with a note."""
    sizes = *map(int, size.split('x')), channels
    kwargs = dict(dtype=getattr(torch, dtype), device='meta')
    # Here nothing is allocated, so the card's memory is the only limit.
    no_limits = dict(GROUPS_LIMIT=math.inf, AFFINITY_LIMIT=math.inf)
    with counted(), mock.patch.multiple(cases, **no_limits):
        offers = list(cases.CASES[case](*sizes, **kwargs))
        offers += further.sdpa(case, offers)
    for offer in offers:
        if 'under autocast' in offer.name:
            offer.amp = kwargs['dtype']
    return [
        dict(case=case, size=size, dtype=dtype, name=offer.name)
        | _figures(offer)
        for offer in offers
    ]


def _figures(offer):
    if isinstance(offer, Skipped):
        return dict(note=offer.reason)
    try:
        found = count(offer)
    except RuntimeError as error:
        return dict(note=f'fails: {one_line(error)}')
    memory = found['needed'] + found['extra']
    if memory > MEMORY:
        return dict(note=f'needs {memory / 1e9:.0f} GB')
    return found


def is_above(rows) -> bool:
    """Whether ours fails or is predicted slower than its best peer."""
    ours, *peers = (row.get('seconds', math.inf) for row in rows)
    return ours == math.inf or ours > min(peers, default=math.inf)


def cells(row, ours):
    """Columns of a row."""
    names = [row[name] for name in ('case', 'size', 'dtype', 'name')]
    if 'note' in row:
        return [*names, row['note']]
    ratio = row['seconds'] / ours['seconds'] if 'seconds' in ours else None
    return [
        *names,
        ' + '.join(map(str, row['launches'])),
        f'{row["bytes"] / 1e6:.1f}',
        f'{sum(row["flops"].values()) / 1e9:.1f}',
        f'{row["extra"] / 2**20:.1f}',
        f'{1e6 * row["seconds"]:.1f}',
        '-' if ratio is None else f'{ratio:.2f}',
    ]


def parse_args(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        '--cases', nargs='+', choices=cases.CASES, default=list(cases.CASES)
    )
    parser.add_argument(
        '--sizes',
        nargs='+',
        type=size,
        default=SIZES.split(),
        help=f'BxHxW ..., by default {SIZES}',
    )
    parser.add_argument(
        '--dtypes',
        nargs='+',
        choices=DTYPES.split(),
        default=DTYPES.split(),
    )
    parser.add_argument('--channels', type=positive, default=512)
    parser.add_argument(
        '--calls', type=int, default=0, help='print the costliest of ours'
    )
    parser.add_argument('--out', type=folder, help='folder for the results')
    return parser.parse_args(arguments)


def main(arguments=None):
    args = parse_args(arguments)
    if launch.triton is None:
        raise SystemExit('kernels of ours are counted: pip install triton')
    problems = itertools.product(args.cases, args.sizes, args.dtypes)
    found = [measure(*problem, args.channels) for problem in problems]
    if args.calls:
        for rows in found:
            _print_calls(rows[0], args.calls)
    rows = [
        {name: x for name, x in row.items() if name != 'calls'}
        for row in itertools.chain(*found)
    ]
    save_table(
        HEADER,
        [cells(row, group[0]) for group in found for row in group],
        NOTE,
        dict(
            machine=dict(device='none', torch=torch.__version__),
            bytes_per_second=BYTES_PER_SECOND,
            flops_per_second=FLOPS_PER_SECOND,
            rows=rows,
        ),
        args.out,
        'counted',
    )
    above = sum(map(is_above, found))
    text = f'{above} of {len(found)} cases above their best peer'
    if above:
        raise SystemExit(text)
    print(text)


def _print_calls(row, most):
    """The calls of a row that move the most, those of a name together."""
    moved, times, flops = Counter(), Counter(), Counter()
    for call in row.get('calls', ()):
        moved[call.name] += call.read + call.written
        times[call.name] += 1
        flops[call.name] += call.flops
    print_table(
        ' '.join(row[x] for x in ('case', 'size', 'dtype', 'name')),
        ['call', 'times', 'MB', 'GFLOP'],
        [
            [
                name,
                str(times[name]),
                f'{number / 1e6:.1f}',
                f'{flops[name] / 1e9:.1f}',
            ]
            for name, number in moved.most_common(most)
        ],
    )


if __name__ == '__main__':
    run_command(main)
