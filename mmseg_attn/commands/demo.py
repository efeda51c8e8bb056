# Copyright (c) mmseg_attn contributors.
"""``demo``: train and compare FCN and CCNet, make a sheet."""

import argparse
from pathlib import Path

from ..progress import quiet_imports
from . import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    options.add_trials(parser)
    options.add_device(parser)
    parser.add_argument(
        '--work-dir',
        type=Path,
        help='empty or new folder for all output; by default '
        'work_dirs/demo, or demo-2, ... if that is taken',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='(default: %(default)s)'
    )


def main(args: argparse.Namespace) -> None:
    """Run the demo."""
    with quiet_imports():
        from ..trials.demo import run_demo
        from ..trials.trial import Setting

    setting = Setting(
        *(args.images, args.masks, args.device, args.iters, args.depth),
        options.read_classes(args),
    )
    shown = run_demo(setting, args.work_dir, args.seed)
    if args.images:
        options.print_next('train', *options.given_pictures(args))
    else:
        options.print_next('predict', *shown)
