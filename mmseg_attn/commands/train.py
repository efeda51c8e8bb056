# Copyright (c) mmseg_attn contributors.
"""``train``: train the model of a config, or one on your own pictures."""

import argparse
from pathlib import Path

from ..configs import OWN_BACKBONES, OWN_METHODS, load_config
from ..errors import UserError
from ..progress import quiet_hosts, quiet_imports
from . import options

# What the hosts log is what a training says.
LOGS = True
STOPPED = 'Stopped. Go on with --resume.'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        'config',
        nargs='?',
        help='config file, or name of a packaged config; none with --images',
    )
    _add_own_data(parser.add_argument_group('your own pictures, no config'))
    options.add_work_dir(parser, 'logs and checkpoints')
    add = parser.add_argument
    add(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint; without a path from the newest one in '
        'the work folder, or from the start where there is none',
    )
    add(
        '--amp',
        action='store_true',
        help='mixed precision: float16 on a GPU, bfloat16 on the CPU',
    )
    add(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the total batch size',
    )
    options.add_cfg_options(parser)
    options.add_launcher(parser)


def _add_own_data(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    options.add_pictures(group)
    add(
        '--out',
        type=Path,
        default=Path('work_dirs/mine'),
        metavar='PATH',
        help='folder of the config, the data and the training '
        '(default: %(default)s)',
    )
    add(
        '--method',
        choices=OWN_METHODS,
        default='ccnet',
        help='attention (default: %(default)s)',
    )
    add(
        '--backbone',
        choices=OWN_BACKBONES,
        default='r50',
        help='(default: %(default)s)',
    )
    start = group.add_mutually_exclusive_group()
    start.add_argument(
        '--from',
        dest='published',
        metavar='NAME',
        help='a model of "zoo list", with all its weights that fit, instead '
        'of --method and --backbone',
    )
    start.add_argument(
        '--pretrained',
        action='store_true',
        help='begin with weights of ImageNet (the default)',
    )
    start.add_argument('--weights', metavar='FILE', help='begin with these')
    start.add_argument(
        '--scratch', action='store_true', help='begin with random weights'
    )
    add('--crop', type=int, metavar='PIXELS', help='side of training crops')
    add(
        '--batch-size',
        type=int,
        default=8,
        metavar='N',
        help='pictures in a step, fewer where memory is short '
        '(default: %(default)s)',
    )
    length = group.add_mutually_exclusive_group()
    length.add_argument(
        '--iters', type=int, metavar='N', help='steps (default: 2000)'
    )
    length.add_argument(
        '--epochs', type=float, metavar='N', help='times each picture is seen'
    )
    length.add_argument(
        '--minutes', type=float, metavar='N', help='as many steps as fit'
    )
    add(
        '--classes',
        metavar='FILE|A,B',
        help='names of the classes (default: those of a dataset.json beside '
        'the masks, else the values found)',
    )
    add(
        '--balance',
        action='store_true',
        help='crop more often around rare classes',
    )
    add(
        '--patience',
        type=int,
        metavar='N',
        help='stop after so many validations without a better mIoU',
    )
    add('--seed', type=int, default=0, help='(default: %(default)s)')
    add(
        '--dry-run',
        action='store_true',
        help='stop after the plan and the config',
    )


def main(args: argparse.Namespace) -> None:
    """Train, and validate as the config says.

    Raises:
        UserError: Neither a config nor pictures are given, or both.
    """
    if (args.config is None) == (args.images is None):
        raise UserError(
            'expected a config, or --images and --masks of your own.'
        )
    if args.images:
        _train_own(args)
        return
    cfg = options.read_config(args)
    with quiet_imports():
        from ..apis.training import scale_learning_rate, use_mixed_precision
        from ..engine.runner import build_runner, end_processes

    if args.resume:
        cfg.resume = args.resume
    if args.amp:
        use_mixed_precision(cfg)
    if args.auto_scale_lr:
        scale_learning_rate(cfg)
    build_runner(cfg).train()
    end_processes()


def _train_own(args: argparse.Namespace) -> None:
    if args.masks is None:
        raise UserError('--images needs --masks, their masks.')
    with quiet_imports():
        from ..apis.own_config import Recipe
        from ..apis.own_data import read_own_data
        from ..apis.own_training import (
            class_table,
            fitting_crop,
            of_device,
            plan_training,
        )
        from ..apis.zoo import download, find_row
        from ..datasets.mask_classes import read_class_names
        from ..datasets.pairs import check_outside
        from ..engine.runner import build_runner

    check_outside(args.out, (args.images, args.masks), '--out')
    path = args.out / 'config.py'
    if path.exists():
        raise UserError(
            f'{path} exists. Go on with: python -m mmseg_attn train {path} '
            '--resume; or give another --out.'
        )
    row = find_row(args.published) if args.published else None
    classes = read_class_names(args.classes) if args.classes else None
    with quiet_hosts():
        data = read_own_data(
            args.images, args.masks, seed=args.seed, classes=classes
        )
        for note in data.notes:
            print(note)
        print(class_table(data))
        for line in data.warnings():
            print(f'WARNING: {line}.')
        if not args.balance and (rare := data.rare()):
            print(
                f'WARNING: {", ".join(rare)}: few of the pixels. --balance '
                'crops more often around rare classes.'
            )
        weights = args.weights
        if row:
            path, found = download(row, args.out / 'start')
            print(f'{path}: {found}')
            weights = str(path)
        recipe = Recipe(
            method=args.method,
            backbone=args.backbone,
            scratch=args.scratch,
            weights=weights,
            published=row and row.name,
            crop=fitting_crop(data) if args.crop is None else args.crop,
            **of_device(),
            batch=args.batch_size,
            iters=2000 if args.iters is None else args.iters,
            balance=args.balance,
            patience=args.patience,
            seed=args.seed,
        )
        plan = plan_training(
            data, args.out, recipe, minutes=args.minutes, epochs=args.epochs
        )
    print('\n'.join(plan.lines()))
    if args.dry_run:
        print(f'Train it: python -m mmseg_attn train {path}')
        return
    runner = build_runner(load_config(path))
    runner.train()
    best = sorted((args.out / 'run').glob('best_mIoU_*.pth'))[-1]
    print(
        f'Best weights: {best}\nNext: python -m mmseg_attn predict {path} '
        f'{best} {args.images}'
    )
