# Copyright (c) mmseg_attn contributors.
"""Benchmark our operators and layers against the peers installed.

For each size: check that all give the same output and gradients, then time
forward and forward+backward in turns and measure peak memory. Prints a
table; writes ``benchmark.json``, ``benchmark.md`` and ``benchmark.png``.

    python tools/benchmark/run.py --out benchmark
    python tools/benchmark/run.py --sizes 1x128x256 2x97x97 --repeat 15
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch
from cases import CASES
from measure import Contestant, memory_bytes, time_in_turns, verify
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

SIZES = (
    '1x8x8 2x8x8 1x16x16 2x32x32 2x64x64 2x97x97 1x128x128 1x128x256 1x256x256'
)
TOLERANCE = {
    torch.float32: 1e-4,
    torch.float16: 2e-2,
    torch.bfloat16: 5e-2,
}


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        '--cases', nargs='+', choices=CASES, default=list(CASES)
    )
    parser.add_argument(
        '--sizes', nargs='+', default=SIZES.split(), help='BxHxW ...'
    )
    parser.add_argument('--channels', type=int, default=512)
    parser.add_argument(
        '--dtype',
        default='float32',
        choices=['float32', 'float16', 'bfloat16'],
    )
    parser.add_argument(
        '--device', default='cuda' if torch.cuda.is_available() else 'cpu'
    )
    parser.add_argument('--threads', type=int, help='CPU threads')
    parser.add_argument('--repeat', type=int, default=30)
    parser.add_argument(
        '--budget', type=float, default=15, help='seconds of timing per size'
    )
    parser.add_argument('--out', type=Path, help='folder for the results')
    return parser.parse_args()


def machine(args):
    device = (
        torch.cuda.get_device_name()
        if args.device == 'cuda'
        else f'{platform.machine()}, {torch.get_num_threads()} threads, '
        f'{torch.backends.cpu.get_cpu_capability()}'
    )
    return dict(
        device=device,
        torch=torch.__version__,
        dtype=args.dtype,
        channels=args.channels,
    )


def measure(case, size, args):
    """Rows of one case at one size, ours first."""
    dtype = getattr(torch, args.dtype)
    torch.manual_seed(0)
    batch, height, width = map(int, size.split('x'))
    offers = list(
        CASES[case](
            batch,
            height,
            width,
            args.channels,
            dtype=dtype,
            device=args.device,
        )
    )
    contestants = [Contestant(*o) for o in offers if o[1] is not None]
    verify(contestants, TOLERANCE[dtype])
    times = time_in_turns(contestants, args.device, args.repeat, args.budget)
    rows = []
    for c in contestants:
        peak, extra = memory_bytes(c, args.device)
        record = dict(case=case, size=size, name=c.name, peak=peak)
        rows.append(dict(**record, extra=extra, **times[c.name]))
    rows += [
        dict(case=case, size=size, name=o[0]) for o in offers if o[1] is None
    ]
    return rows


def cells(row, ours):
    """Columns of a row: times in ms, memory in MiB, and ratios to ours."""
    if 'total' not in row:
        return [row['case'], row['size'], row['name'], *['-'] * 7]
    numbers = []
    for kind in ('forward', 'total'):
        value, base = row[kind]['median'], ours[kind]['median']
        numbers += [
            f'{1e3 * value:.2f} ±{5e2 * row[kind]["iqr"]:.2f}',
            f'{value / base:.2f}',
        ]
    return [
        row['case'],
        row['size'],
        row['name'],
        *numbers,
        f'{row["peak"] / 2**20:.1f}',
        f'{row["extra"] / 2**20:.1f}',
        f'{row["extra"] / ours["extra"]:.2f}',
    ]


HEADER = [
    'case',
    'BxHxW',
    'contestant',
    'forward ms',
    'x ours',
    'forward+backward ms',
    'x ours',
    'peak MiB',
    'extra MiB',
    'x ours',
]


def report(rows, info, console, out):
    lines = []
    for row in rows:
        if row['name'] == 'ours':
            ours = row
        lines.append(cells(row, ours))
    title = ', '.join(f'{k} {v}' for k, v in info.items())
    table = Table(*HEADER, title=title)
    for line in lines:
        table.add_row(*line)
    console.print(table)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dict(machine=info, rows=rows), indent=1)
        (out / 'benchmark.json').write_text(text)
        rule = ['---'] * len(HEADER)
        body = '\n'.join(
            f'| {" | ".join(line)} |' for line in [HEADER, rule, *lines]
        )
        note = (
            'Median of rounds in turns, ± half the interquartile range. '
            'Extra memory: beyond the output and the gradients.'
        )
        (out / 'benchmark.md').write_text(f'{title}. {note}\n\n{body}\n')
        plot(rows, title, out / 'benchmark.png')


def plot(rows, title, path):
    """Time and memory against pixels, a line per contestant."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    rows = [r for r in rows if 'total' in r]
    cases = list(dict.fromkeys(r['case'] for r in rows))
    figure, axes = plt.subplots(
        len(cases),
        2,
        figsize=(10, 3.6 * len(cases)),
        squeeze=False,
        layout='constrained',
    )
    for case, (left, right) in zip(cases, axes, strict=True):
        names = dict.fromkeys(r['name'] for r in rows if r['case'] == case)
        for name in names:
            chosen = [
                r for r in rows if (r['case'], r['name']) == (case, name)
            ]
            points = sorted(
                (
                    torch.Size(map(int, r['size'].split('x'))).numel(),
                    1e3 * r['total']['median'],
                    r['extra'] / 2**20,
                )
                for r in chosen
            )
            pixels, milliseconds, mebibytes = zip(*points, strict=True)
            left.loglog(pixels, milliseconds, 'o-', label=name)
            right.loglog(pixels, mebibytes, 'o-', label=name)
        left.set_ylabel('forward + backward, ms')
        right.set_ylabel('extra memory, MiB')
        for ax in (left, right):
            ax.set(title=case.replace('_', ' '), xlabel='pixels in the batch')
            ax.grid(True, which='both', alpha=0.3)
            ax.legend()
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main():
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    console = Console()
    rows = []
    jobs = [(case, size) for case in args.cases for size in args.sizes]
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task('measuring', total=len(jobs))
        for case, size in jobs:
            progress.update(task, description=f'{case} {size}')
            rows += measure(case, size, args)
            progress.advance(task)
    report(rows, machine(args), console, args.out)


if __name__ == '__main__':
    main()
