# Copyright (c) mmseg_attn contributors.
"""Compile the kernels for cards that are not here.

For each card and shape: registers, spills and shared memory of each kernel,
as ptxas reports them, and how many programs a multiprocessor holds at a time.
Needs Triton, no GPU. The committed table is results/offline.json.

    python tools/benchmark/offline.py --out offline
    python tools/benchmark/offline.py --cards 90 --kernels attend_lines
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import multiprocessing
import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

from mmseg_attn.ops.core import device
from mmseg_attn.ops.kernels import attention, launch, lines, tiles

# Compute capability -> KiB of shared memory of a program and of a
# multiprocessor, and the threads that the latter holds, from the CUDA
# programming guide's table of technical specifications.
CARDS = {
    80: (163, 164, 2048),
    86: (99, 100, 1536),
    89: (99, 100, 1536),
    90: (227, 228, 2048),
    100: (227, 228, 2048),
    120: (99, 100, 1536),
}
REGISTERS = 65536


class Shape(NamedTuple):
    """A problem: the benchmark's widths, and lines of its sizes."""

    name: str
    width: int
    value_width: int
    patterns: tuple
    dtype: torch.dtype
    deterministic: bool = False


def shapes():
    """The benchmark's."""
    grid = 1, 128, 256, 1
    cross = (
        lines.along((*grid, 64), 1),
        lines.along((*grid, 64), 0, exclude_self=True),
    )
    windows = (lines.strided((*grid, 64), (8, 8)),)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        yield Shape('criss-cross', 64, 512, cross, dtype)
        yield Shape('interlaced', 256, 512, windows, dtype)
        yield Shape('criss-cross', 64, 512, cross, dtype, True)


class _Driver:
    """Stands for the driver of a card."""

    def __init__(self, card):
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget('cuda', card, 32)

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return self.target.arch

    def get_current_stream(self, device=None):
        return 0

    def set_current_device(self, device):
        pass

    def get_active_torch_device(self):
        return torch.device('cpu')


@contextlib.contextmanager
def compiled(card):
    """Let launches compile for a card; yields (kernel, options, result)s."""
    import triton.runtime

    found = []

    def run(kernel, grid, *arguments, on, reads, writes, **options):
        options.pop('flops', None)
        options.pop('precision', None)
        result = kernel.warmup(*arguments, grid=tuple(grid), **options)
        found.append((kernel.__name__, options, result))

    before = launch.launch, attention.launch, tiles.card_of
    triton.runtime.driver.set_active(_Driver(card))
    attention.launch = launch.launch = run
    tiles.card_of = lambda _: (card, CARDS[card][0])
    try:
        with device.counting():
            yield found
    finally:
        launch.launch, attention.launch, tiles.card_of = before


def run_shape(shape):
    """Forward and backward of a shape on the meta device."""
    grid = 1, 128, 256, 1

    def make(width):
        return torch.empty(*grid, width, dtype=shape.dtype, device='meta')

    q, k, v, g = map(make, (shape.width,) * 2 + (shape.value_width,) * 2)
    torch.use_deterministic_algorithms(shape.deterministic)
    out, lse = attention.attend(q, k, v, shape.patterns, 1.0)
    delta = attention.delta_of(g, out)
    grads = [torch.empty_like(x) for x in (q, k, v)]
    attention.attend_backward(
        g, q, k, v, delta, lse, shape.patterns, 1.0, tuple(grads)
    )
    torch.use_deterministic_algorithms(False)


def resources(kernel, card):
    """What a compiled kernel takes of a multiprocessor."""
    import triton

    tool = Path(triton.__file__).parent / 'backends/nvidia/bin/cuobjdump'
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(kernel.asm['cubin'])
        file.flush()
        printed = subprocess.run(
            [tool, '-res-usage', file.name], capture_output=True, text=True
        )
    found = re.search(
        r'REG:(\d+) STACK:(\d+)', printed.stdout + printed.stderr
    )
    registers, stack = map(int, found.groups())
    threads, shared = 32 * kernel.metadata.num_warps, kernel.metadata.shared
    _, kib, most = CARDS[card]
    programs = min(
        REGISTERS // (math.ceil(registers / 8) * 8 * threads),
        kib * 1024 // (shared + 1024),
        most // threads,
    )
    return dict(
        registers=registers, spill_bytes=stack, shared_bytes=shared,
        warps=kernel.metadata.num_warps, programs=programs,
    )  # fmt: skip


def rows_of(job):
    """All kernels of one shape for one card."""
    card, shape = job
    with compiled(card) as found:
        run_shape(shape)
    rows = []
    for name, options, kernel in found:
        kept = {
            k: options[k]
            for k in ('M', 'N', 'C', 'D', 'KEYS', 'LATER', 'STAGES', 'TMA')
            if k in options
        }
        rows.append(
            dict(
                card=f'sm_{card}',
                shape=shape.name,
                dtype=str(shape.dtype)[6:],
                kernel=name,
                options=kept,
                **resources(kernel, card),
            )  # fmt: skip
        )
    return rows


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        '--cards', nargs='+', type=int, default=list(CARDS), choices=CARDS
    )
    parser.add_argument('--dtypes', nargs='+')
    parser.add_argument('--shapes', nargs='+')
    parser.add_argument('--jobs', type=int, default=2)
    parser.add_argument('--out', type=Path, help='folder for the results')
    args = parser.parse_args(arguments)
    chosen = [
        s
        for s in shapes()
        if str(s.dtype)[6:] in (args.dtypes or str(s.dtype))
        and s.name in (args.shapes or s.name)
    ]
    jobs = list(itertools.product(args.cards, chosen))
    context = multiprocessing.get_context('spawn')
    with context.Pool(args.jobs) as pool:
        rows = [r for found in pool.imap(rows_of, jobs) for r in found]
    for r in rows:
        print(*r.values())


if __name__ == '__main__':
    main()
