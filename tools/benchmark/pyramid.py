# Copyright (c) mmseg_attn contributors.
"""Efficient against non-local attention on a pyramid or a cost volume.

One module of each, forward and backward, on the levels P2 to P6 of a padded
picture of 800x1344 pixels (COCO's 800x1333), 256 channels. Non-local
attention whose affinities would not fit into memory is not tried. Efficient
attention is first checked against the product of its two softmaxes.

    python tools/benchmark/pyramid.py --out pyramid

With --volume: on PSMNet's cost volume of a pair of 256x512 pixels and 192
disparities, 32 channels, and on what its hourglasses make of it.

    python tools/benchmark/pyramid.py --volume --out volume
"""

from __future__ import annotations

import math
import os

import torch
from machine import setup
from measure import Contestant, as_it_is, time_in_turns, verify
from options import parser
from report import save_table

from mmseg_attn.errors import run_command
from mmseg_attn.progress import quiet_imports

with quiet_imports():
    from mmcv.cnn.bricks import NonLocal2d, NonLocal3d

    from mmseg_attn.layers import EfficientAttention

# Least copies of the affinity that a step of mmcv's module holds at once:
# product, softmax, and the gradient of either.
COPIES = 3
HEADER = ['level', 'map', 'positions', 'module', 'forward', 'step', 'extra']
NOTE = (
    'One module, keys of half the channels, one picture or pair. Step: '
    'forward and backward to all gradients. Extra: most memory at once beyond '
    "the output and the gradients. Non-local: mmcv's, embedded Gaussian."
)


def levels(height, width):
    """(name, height, width) of P2 to P6."""
    for level in range(2, 6):
        yield f'P{level}', -(-height // 2**level), -(-width // 2**level)
    # Every other position of P5.
    height, width = -(-height // 32), -(-width // 32)
    yield 'P6', -(-height // 2), -(-width // 2)


def volumes():
    """(name, disparities, height, width) of the volume and its halves."""
    for level, size in enumerate(('whole', '1/2', '1/4')):
        yield size, *(side >> level for side in (48, 64, 128))


class Plain(torch.nn.Module):
    """The formula, the product of keys and values first."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        query = self.layer.queries(x).flatten(2).softmax(1)
        key = self.layer.keys(x).flatten(2).softmax(2)
        value = self.layer.values(x).flatten(2)
        context = key @ value.transpose(1, 2)
        out = (context.transpose(1, 2) @ query).unflatten(2, x.shape[2:])
        return x + self.layer.reprojection(out)


def memory_bytes(device):
    if torch.device(device).type == 'cuda':
        return torch.cuda.mem_get_info()[1]
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


def parse_args(arguments=None):
    result = parser(__doc__)
    result.set_defaults(channels=None)
    result.add_argument(
        '--volume', action='store_true', help='a cost volume, no pyramid'
    )
    result.add_argument(
        '--picture', nargs=2, type=int, default=[800, 1344], metavar='PIXELS'
    )
    result.add_argument(
        '--budget', type=float, default=30, help='seconds of timing a level'
    )
    args = result.parse_args(arguments)
    args.channels = args.channels or (32 if args.volume else 256)
    return args


def measure(name, *size, args, dtype):
    """Rows of a level: efficient attention, and non-local or why not."""
    kwargs = dict(device=args.device, dtype=dtype)
    torch.manual_seed(0)
    x = torch.randn(1, args.channels, *size, **kwargs)
    ours = EfficientAttention(args.channels, spatial_dims=len(size))
    ours = ours.to(**kwargs)
    pair = [Contestant('efficient', ours, [x], as_it_is)]
    plain = Contestant('formula', Plain(ours), [x], as_it_is)
    verify(pair[0], plain.results(), 1e-4 if dtype.itemsize == 4 else 2e-2)
    affinity = math.prod(size) ** 2 * dtype.itemsize
    note = ''
    if COPIES * affinity > memory_bytes(args.device):
        note = f'one affinity is {affinity / 2**30:.1f} GiB'
    else:
        kind = NonLocal3d if len(size) == 3 else NonLocal2d
        dense = kind(args.channels, reduction=2).to(**kwargs)
        # At 0, as it starts, a gradient would be missing.
        torch.nn.init.normal_(dense.conv_out.conv.weight, std=0.01)
        pair.append(Contestant('non-local', dense, [x], as_it_is))
        pair[-1].results()  # warm up
    extra = {c.name: c.memory()[1] for c in pair}
    times = time_in_turns(pair, args.repeat, args.budget)
    rows = [
        dict(
            level=name,
            size=size,
            name=c.name,
            extra_bytes=extra[c.name],
            seconds=times[c.name],
        )
        for c in pair
    ]
    if note:
        rows.append(dict(level=name, size=size, name='non-local', note=note))
    return rows


def cells(row):
    size = row['size']
    names = [row['level'], 'x'.join(map(str, size))]
    names.append(f'{math.prod(size):,}')
    names.append(row['name'])
    if 'note' in row:
        return [*names, 'not tried', row['note'], '-']
    times = [
        f'{1e3 * row["seconds"][k]["median"]:.1f} ms'
        for k in ('forward', 'total')
    ]
    return [*names, *times, f'{row["extra_bytes"] / 2**20:.1f} MiB']


def main(arguments=None):
    args = parse_args(arguments)
    dtype, _, info = setup(args)
    rows = []
    for level in volumes() if args.volume else levels(*args.picture):
        rows += measure(*level, args=args, dtype=dtype)
    body = [cells(row) for row in rows]
    data = dict(machine=info, rows=rows)
    name = 'volume' if args.volume else 'pyramid'
    save_table(HEADER, body, NOTE, data, args.out, name)


if __name__ == '__main__':
    run_command(main)
