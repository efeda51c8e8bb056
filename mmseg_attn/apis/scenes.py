# Copyright (c) mmseg_attn contributors.
"""``python -m mmseg_attn scenes``: write a demo dataset of scenes."""

import argparse
from functools import partial
from pathlib import Path

from ..progress import quiet_hosts

with quiet_hosts():
    from ..datasets.scenes.clips import write_clips
    from ..datasets.scenes.folder import write_folder
    from ..datasets.scenes.stereo import write_pairs


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
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        '--clips',
        type=int,
        metavar='FRAMES',
        help='clips, in which another frame tells the classes, and a video',
    )
    kind.add_argument(
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
        write, kind = write_folder, 'scenes'
        if args.stereo:
            write, kind = write_pairs, 'pairs'
        elif args.clips is not None:
            write = partial(write_clips, frames=args.clips)
            kind = f'clips of {args.clips} frames'
        write(out, args.seed, args.train, args.val, args.size)
    except (ValueError, OSError) as error:
        raise SystemExit(f'Error: {error}') from error
    print(f'{args.train} + {args.val} {kind} are in {out}')
