# Copyright (c) mmseg_attn contributors.
"""``reproduce``: train a model of the zoo anew, and compare."""

import argparse
from pathlib import Path

from ..progress import quiet_imports

# What the hosts log is what a training says.
LOGS = True
STOPPED = 'Stopped. The same command goes on from here.'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add('name', help='a model that was trained here, see "zoo list"')
    add(
        '--data-root',
        type=Path,
        metavar='DIR',
        help='folder of the data (default: that of the config; scenes are '
        'drawn)',
    )
    add(
        '--work-dir',
        type=Path,
        metavar='DIR',
        help='folder for logs and checkpoints (default: work_dirs/NAME)',
    )


def main(args: argparse.Namespace) -> int:
    """Train, measure, compare; 1 if it does not agree with the row.

    Raises:
        UserError: It was not trained here, or its data cannot be used.
    """
    with quiet_imports():
        from ..apis.reproduction import DEVIATIONS, reproduce

    found = reproduce(args.name, args.work_dir, args.data_root)
    row = found.row
    seeds = ', '.join(
        f'{miou:.2f} (seed {s})' for s, miou in row.seeds.items()
    )
    if row.spread is None:
        spread = 'of one seed, so by how much another differs is not known'
        rule = 'for the same seed on the same machine'
    else:
        spread = f'standard deviation {row.spread:.2f}'
        rule = f'{DEVIATIONS} standard deviations'
    print(
        f'{row.short}, trained anew with seed {next(iter(row.seeds))}: '
        f'{found.weights}\n'
        f'val mIoU: {found.miou:.2f}\n'
        f'stated: {seeds}; mean {row.mean:.2f}, {spread}\n'
        f'from the mean: {found.miou - row.mean:+.2f}, allowed are '
        f'{found.allowed:.2f} ({rule}): '
        + ('it agrees' if found.agrees else 'it does not agree')
    )
    return 0 if found.agrees else 1
