# Copyright (c) mmseg_attn contributors.
"""``python -m mmseg_attn scenes``: write a demo dataset of scenes."""

import argparse
from pathlib import Path

from .folder import write_folder
from .stereo import write_pairs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to a parser.

    Args:
        parser (ArgumentParser): The parser.
    """
    parser.add_argument('out', type=Path, help='folder to write')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--train', type=int, default=640, help='training scenes'
    )
    parser.add_argument(
        '--val', type=int, default=80, help='validation scenes'
    )
    parser.add_argument(
        '--size', type=int, default=96, help='height and width in pixels'
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='write into a folder that is not empty',
    )
    parser.add_argument(
        '--stereo',
        action='store_true',
        help='pairs of pictures with disparities, twice as wide as high',
    )


def main(args: argparse.Namespace) -> None:
    """Write the folder.

    Args:
        args (Namespace): The parsed arguments.

    Raises:
        SystemExit: If the folder is not empty or cannot be written, or a
            number cannot be met.
    """
    out = args.out
    try:
        if out.is_dir() and any(out.iterdir()) and not args.overwrite:
            raise ValueError(
                f'{out} is not empty. Name another folder, or give '
                '--overwrite to replace scenes of the same name in it.'
            )
        write = write_pairs if args.stereo else write_folder
        write(out, args.seed, args.train, args.val, args.size)
    except (ValueError, OSError) as error:
        raise SystemExit(f'Error: {error}') from error
    kind = 'pairs' if args.stereo else 'scenes'
    print(f'{args.train} + {args.val} {kind} are in {out}')
