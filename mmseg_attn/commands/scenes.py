# Copyright (c) mmseg_attn contributors.
"""``scenes``: write a demo dataset of scenes."""

import argparse
from pathlib import Path

from ..configs import SPLITS
from ..errors import UserError
from ..progress import quiet_imports
from . import options

# What was written -> the config that learns it, and where it looks for it.
CONFIGS = {
    'scenes': ('ccnet-r2_r18-s4_1xb8-1k_demo-scenes-96x96', 'data/scenes'),
    'clips of 5 frames': (
        'ccnet3d-t5_r18-s4_1xb8-2k_demo-clips-96x96',
        'data/clips',
    ),
    'pairs': ('psmnet_1xb2-400_demo-stereo-96x192', 'data/stereo'),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add('out', type=Path, help='folder to write')
    add('--seed', type=int, default=0, help='(default: %(default)s)')
    add(
        '--train',
        type=int,
        default=640,
        help='training scenes (default: %(default)s)',
    )
    add(
        '--val',
        type=int,
        default=80,
        help='validation scenes (default: %(default)s)',
    )
    add(
        '--size',
        type=int,
        default=96,
        help='height and width in pixels (default: %(default)s)',
    )
    options.add_overwrite(parser, 'write into a folder that is not empty')
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

    Raises:
        UserError: The folder is not empty, or a number cannot be met.
    """
    with quiet_imports():
        from ..datasets.scenes import write_clips, write_folder, write_pairs

    out = args.out
    if out.is_dir() and any(out.iterdir()) and not args.overwrite:
        raise UserError(
            f'{out} is not empty. Name another folder, or give --overwrite '
            'to replace scenes of the same name in it.'
        )
    given = (out, args.seed, args.train, args.val, args.size)
    kind = 'scenes'
    if args.stereo:
        write_pairs(*given)
        kind = 'pairs'
    elif args.clips is not None:
        write_clips(*given, frames=args.clips)
        kind = f'clips of {args.clips} frames'
    else:
        write_folder(*given)
    print(f'{args.train} + {args.val} {kind} are in {out}')
    if kind in CONFIGS:
        name, usual = CONFIGS[kind]
        roots = [
            f'{split}_dataloader.dataset.data_root={out}' for split in SPLITS
        ]
        changed = [] if out == Path(usual) else ['--cfg-options', *roots]
        options.print_next('train', name, *changed)
