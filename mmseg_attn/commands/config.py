# Copyright (c) mmseg_attn contributors.
"""``config``: write a packaged config in one piece, to be changed."""

import argparse
from pathlib import Path

from ..configs import write_config
from ..progress import quiet_imports
from . import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    options.add_config(parser)
    parser.add_argument(
        '--dest',
        type=Path,
        default=Path(),
        metavar='DIR',
        help='folder for the copy (default: this one)',
    )
    options.add_cfg_options(parser)


def main(args: argparse.Namespace) -> None:
    """Write the config with all its bases as one file."""
    changes = options.read_options(args.cfg_options)
    with quiet_imports():
        path = write_config(args.config, args.dest, changes)
    print(f'Config in one piece: {path}')
    options.print_next('train', path)
