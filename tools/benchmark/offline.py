# Copyright (c) mmseg_attn contributors.
"""Compile the kernels for cards that are not here.

For each card and shape: registers, spills and shared memory of each kernel,
as ptxas reports them, and how many programs a multiprocessor holds at a time.
Needs Triton, no GPU. The committed table is results/offline, and a test
compares with it.

    python tools/benchmark/offline.py --out tools/benchmark/results/offline
    python tools/benchmark/offline.py --cards 90 --shapes criss-cross
"""

from __future__ import annotations

import argparse
import contextlib
import math
import multiprocessing
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch
from options import folder, positive
from report import save_table

from mmseg_attn.errors import run_command
from mmseg_attn.ops.core import device
from mmseg_attn.ops.kernels import attention, delta, lines, residual, tiles

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


NOTE = (
    'Each kernel with the tile that it takes on a card, at the widths of the '
    "papers' networks. Spill: bytes of the stack of a thread. Programs: that "
    'a multiprocessor holds at a time, by registers, shared memory and '
    'threads. Later: the second axis of criss-cross attention, which adds to '
    'the first. Compiled, not run.'
)
HEADER = [
    'card', 'shape', 'dtype', 'kernel', 'tile', 'registers', 'spill',
    'shared KiB', 'warps', 'programs',
]  # fmt: skip
GRID = 1, 128, 256, 1


class Shape(NamedTuple):
    """A problem.

    Args:
        name: In the table.
        dtype: Of all tensors.
        width, value_width: Of keys and values.
        nested: Whether it is interlaced attention, not criss-cross.
        deterministic: Whether gradients are to be the same in every run.
    """

    name: str
    dtype: str
    width: int = 64
    value_width: int = 512
    nested: bool = False
    deterministic: bool = False


SHAPES = (
    *(
        Shape('criss-cross', dtype)
        for dtype in ('bfloat16', 'float16', 'float32')
    ),
    *(
        Shape('interlaced', dtype, 256, nested=True)
        for dtype in ('bfloat16', 'float16')
    ),
    *(
        Shape('deterministic', dtype, deterministic=True)
        for dtype in ('bfloat16', 'float32')
    ),
    *(
        Shape('keys of 128', dtype, 128, deterministic=deterministic)
        for dtype in ('bfloat16', 'float32')
        for deterministic in (False, True)
    ),
)


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
    kib = CARDS[card][0]

    def run(kernel, grid, *arguments, on, reads, writes, **options):
        options.pop('flops', None)
        options.pop('precision', None)
        result = kernel.warmup(*arguments, grid=tuple(grid), **options)
        found.append((kernel.__name__, options, result))

    triton.runtime.driver.set_active(_Driver(card))
    modules = attention, delta, residual
    with contextlib.ExitStack() as stack:
        for module in modules:
            stack.enter_context(mock.patch.object(module, 'launch', run))
        stack.enter_context(
            mock.patch.object(tiles, 'card_of', lambda _: (card, kib))
        )
        stack.enter_context(device.counting())
        yield found


def run_shape(shape):
    """Forward and backward of a shape on the meta device, and a residual."""
    dtype = getattr(torch, shape.dtype)

    def make(width):
        return torch.empty(*GRID, width, dtype=dtype, device='meta')

    q, k, v, grad = map(make, (shape.width,) * 2 + (shape.value_width,) * 2)
    if shape.nested:
        patterns = [lines.strided(q.shape, (8, 8))]
    else:
        patterns = [lines.along(q.shape, 1), lines.along(q.shape, 0, True)]
    torch.use_deterministic_algorithms(shape.deterministic)
    out, lse = attention.attend(q, k, v, patterns=patterns, scale=1.0)
    shift = delta.row_products_of(grad, out)
    grads = tuple(map(torch.empty_like, (q, k, v)))
    attention.attend_backward(
        *(grad, q, k, v, shift, lse),
        patterns=patterns,
        scale=1.0,
        out=grads,
    )
    torch.use_deterministic_algorithms(False)
    if shape.name == 'criss-cross':
        x = torch.empty(1, shape.value_width, 128, 256, dtype=dtype).to('meta')
        gamma = torch.empty(1, device='meta')
        residual.add_residual(x, gamma, out)
        residual.residual_backward(x, gamma, out, grad, x)


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
    text = printed.stdout + printed.stderr
    found = re.search(r'REG:(\d+) STACK:(\d+)', text)
    registers, stack = map(int, found.groups())
    warps, shared = kernel.metadata.num_warps, kernel.metadata.shared
    _, kib, threads = CARDS[card]
    programs = min(
        REGISTERS // (math.ceil(registers / 8) * 8 * 32 * warps),
        kib * 1024 // (shared + 1024),
        threads // (32 * warps),
    )
    return dict(
        registers=registers, spill=stack, shared=shared, warps=warps,
        programs=programs,
    )  # fmt: skip


def rows_of(job):
    """All kernels of one shape for one card."""
    card, shape = job
    with compiled(card) as found:
        run_shape(shape)
    rows = []
    for name, options, kernel in found:
        tile = 'x'.join(str(options[k]) for k in 'MNC' if k in options)
        marks = [
            mark
            for mark, key in (
                ('keys', 'KEYS'), ('later', 'LATER'), ('TMA', 'TMA'),
            )
            if options.get(key)
        ]  # fmt: skip
        rows.append(
            dict(
                card=f'sm_{card}',
                shape=shape.name,
                dtype=shape.dtype,
                kernel=name,
                tile=' '.join([tile, *marks]),
                **resources(kernel, card),
            )  # fmt: skip
        )
    # The forward is the same in several shapes.
    return [r for i, r in enumerate(rows) if r not in rows[:i]]


def cells(row):
    """Columns of a row."""
    return [
        f'{x / 1024:.0f}' if key == 'shared' else str(x)
        for key, x in row.items()
    ]


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        '--cards', nargs='+', type=int, default=list(CARDS), choices=CARDS
    )
    names = list(dict.fromkeys(s.name for s in SHAPES))
    parser.add_argument('--shapes', nargs='+', default=names, choices=names)
    parser.add_argument('--dtypes', nargs='+')
    parser.add_argument('--jobs', type=positive, default=2)
    parser.add_argument('--out', type=folder, help='folder for the results')
    args = parser.parse_args(arguments)
    if os.environ.get('TRITON_INTERPRET') == '1':
        parser.error('TRITON_INTERPRET=1 compiles nothing: unset it')
    jobs = [
        (card, shape)
        for card in args.cards
        for shape in SHAPES
        if shape.name in args.shapes
        and shape.dtype in (args.dtypes or shape.dtype)
    ]
    if not jobs:
        parser.error(f'no shape of {args.shapes} is in {args.dtypes}')
    context = multiprocessing.get_context('spawn')
    with context.Pool(args.jobs) as pool:
        rows = [r for found in pool.imap(rows_of, jobs) for r in found]
    import triton

    data = dict(machine=dict(triton=triton.__version__), rows=rows)
    save_table(HEADER, list(map(cells, rows)), NOTE, data, args.out, 'offline')


if __name__ == '__main__':
    run_command(main)
