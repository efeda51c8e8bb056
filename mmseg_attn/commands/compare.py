# Copyright (c) mmseg_attn contributors.
"""``compare``: train all methods under one budget."""

import argparse
from pathlib import Path

from ..configs import OWN_BACKBONES, OWN_METHODS
from ..progress import quiet_imports
from . import options

STOPPED = 'Stopped. The same command goes on from here.'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    options.add_trials(parser)
    options.add_device(parser)
    add = parser.add_argument
    add(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/compare'),
        help='folder for all output (default: %(default)s); run the same '
        'command again to go on where it stopped',
    )
    add(
        '--methods',
        nargs='+',
        metavar='METHOD',
        help='such as fcn ccnet-r2; by default all. The first one is the '
        'baseline',
    )
    add(
        '--camvid',
        type=Path,
        metavar='DIR',
        help='on CamVid, by the configs of configs/camvid: images and masks '
        'of train and val as tools/dataset_converters/camvid.py writes them',
    )
    add(
        '--full',
        nargs='?',
        const='r50',
        choices=OWN_BACKBONES,
        metavar='BACKBONE',
        help='on your own pictures with a whole backbone (r50 if none is '
        f'named, of {", ".join(OWN_BACKBONES)}), by the recipe of train '
        '--images; of --camvid the configs with R-50; for a GPU',
    )
    add(
        '--scratch',
        action='store_true',
        help='of --full: begin with random weights, not those of ImageNet',
    )
    add(
        '--crop',
        type=int,
        metavar='PIXELS',
        help='of --full (default: what fits)',
    )
    add('--batch-size', type=int, metavar='N', help='of --full (default: 8)')
    add(
        '--seeds',
        type=int,
        default=3,
        help='trainings of each method (default: %(default)s)',
    )
    add(
        '--jobs',
        type=int,
        default=1,
        help='trainings at a time, which share the cores (default: '
        '%(default)s)',
    )


def main(args: argparse.Namespace) -> None:
    """Run the comparison."""
    with quiet_imports():
        from ..trials.comparison import run_comparison
        from ..trials.trial import Setting

    best = run_comparison(
        Setting(
            *(args.images, args.masks, args.device, args.iters, args.depth),
            options.read_classes(args),
            *(args.full, args.scratch, args.crop, args.batch_size),
            args.camvid,
        ),
        args.work_dir,
        chosen=args.methods,
        seeds=args.seeds,
        jobs=args.jobs,
    )
    own = {stem: name for name, stem in OWN_METHODS.items()}
    method = own.get(best.partition('-')[0])
    if args.images and method:
        given = options.given_pictures(args)
        if args.full:
            given += ['--backbone', args.full]
        given += ['--scratch'] * args.scratch
        options.print_next('train', *given, '--method', method)
