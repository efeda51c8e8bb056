# Copyright (c) mmseg_attn contributors.
"""What ``train`` does with somebody's own pictures, without a config."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..configs import OWN_BACKBONES, OWN_DETECTORS, OWN_METHODS, load_config
from ..errors import UserError
from ..progress import quiet_hosts, quiet_imports
from . import checkpoints, options

if TYPE_CHECKING:  # importing them takes longer than all of --help
    from ..apis.own_coco import OwnInstances
    from ..apis.own_data import OwnData
    from ..apis.own_training import Target

# Options that are for pictures with masks, and for those with instances.
FOR_MASKS = ('published', 'balance', 'classes')
FOR_INSTANCES = ('val_coco', 'val_images')


def add_own_pictures(group: argparse._ArgumentGroup) -> None:
    """Add the options.

    Args:
        group: Where they are shown.
    """
    add = group.add_argument
    options.add_pictures(group)
    add(
        '--coco',
        type=Path,
        metavar='FILE',
        help='instead of masks: boxes and polygons in the format of COCO, '
        'for a detector',
    )
    add(
        '--val-coco',
        type=Path,
        metavar='FILE',
        help='those to validate with (default: some pictures of --coco)',
    )
    add(
        '--val-images',
        type=Path,
        metavar='DIR',
        help='folder of their pictures (default: --images)',
    )
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
        help=f'attention; with --coco {", ".join(OWN_DETECTORS)} '
        '(default: %(default)s)',
    )
    add(
        '--backbone',
        choices=OWN_BACKBONES,
        default='r50',
        help='with --coco one of the ResNets (default: %(default)s)',
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
    start.add_argument(
        '--weights',
        metavar='FILE',
        help='begin with these, or with the best ones of the folder of a '
        'training',
    )
    start.add_argument(
        '--scratch', action='store_true', help='begin with random weights'
    )
    add(
        '--crop',
        type=int,
        metavar='PIXELS',
        help='side of training crops; with --coco longer side of the pictures '
        "(default: the pictures' own, at most 256 on a CPU and 512 on a GPU, "
        'with --coco 320 and 1024)',
    )
    add(
        '--batch-size',
        type=int,
        metavar='N',
        help='pictures in a step, fewer where memory is short (default: 8, '
        'with --coco 4)',
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
    options.add_classes(group)
    add(
        '--balance',
        action='store_true',
        help='crop more often around rare classes',
    )
    add(
        '--patience',
        type=int,
        metavar='N',
        help='stop after so many validations without a better mIoU or AP',
    )
    add('--seed', type=int, default=0, help='(default: %(default)s)')
    add(
        '--dry-run',
        action='store_true',
        help='stop after the plan and the config',
    )


def train_own_pictures(args: argparse.Namespace) -> None:
    """Read, plan, train, and say what to do next.

    Args:
        args: What the command was given.

    Raises:
        UserError: Something of it cannot be used; says what.
    """
    if (args.masks is None) == (args.coco is None):
        raise UserError(
            '--images needs either --masks, a folder of masks, or --coco, a '
            'file of annotations.'
        )
    for name in FOR_MASKS if args.coco else FOR_INSTANCES:
        if getattr(args, name):
            door = '--masks' if args.coco else '--coco'
            raise UserError(f'{options.option_of(name)} is for {door} alone.')
    with quiet_imports():
        from ..apis.own_recipe import Recipe
        from ..apis.own_training import INSTANCES, MASKS, plan_training
        from ..apis.zoo import download, find_row
        from ..datasets.pairs import check_outside
        from ..engine.runner import build_runner

    sources = [args.images, args.masks, args.val_images]
    check_outside(args.out, filter(None, sources), '--out')
    path = args.out / 'config.py'
    if path.exists():
        raise UserError(
            f'{path} exists. Go on with: python -m mmseg_attn train {path} '
            '--resume; or give another --out.'
        )
    row = find_row(args.published) if args.published else None
    weights = args.weights and checkpoints.best_weights(args.weights)
    if weights and '://' not in weights and not Path(weights).is_file():
        raise UserError(f'got --weights {weights}, where there is no file.')
    target = INSTANCES if args.coco else MASKS
    with quiet_hosts():
        data = _read(args, target)
        if row:
            weights, found = download(row, args.out / 'start')
            print(f'{weights}: {found}')
        recipe = Recipe(
            method=args.method,
            backbone=args.backbone,
            scratch=args.scratch,
            weights=weights and str(weights),
            published=row and row.name,
            crop=(
                target.fitting_crop(data) if args.crop is None else args.crop
            ),
            **target.of_device(),
            batch=target.batch if args.batch_size is None else args.batch_size,
            iters=2000 if args.iters is None else args.iters,
            balance=args.balance,
            patience=args.patience,
            seed=args.seed,
        )
        print('Measuring some steps, which takes a minute or two …')
        plan = plan_training(
            data,
            args.out,
            recipe,
            target=target,
            minutes=args.minutes,
            epochs=args.epochs,
        )
    print('\n'.join(plan.lines()))
    if args.dry_run:
        options.print_next('train', path)
        return
    build_runner(load_config(path)).train()
    run = args.out / 'run'
    shown = args.val_images or args.images
    print(f'The best weights and the sheets are in {run}.')
    options.print_next('predict', path, run, shown)


def _read(args: argparse.Namespace, target: Target) -> OwnData | OwnInstances:
    """Read all pictures, and print what they show."""
    from ..apis.own_coco import read_own_instances
    from ..apis.own_data import read_own_data
    from ..apis.own_detector import check_detector

    if args.coco:
        check_detector(args.method, args.backbone)
        data = read_own_instances(
            args.images,
            args.coco,
            val_images=args.val_images,
            val_annotations=args.val_coco,
            seed=args.seed,
        )
        rare = ()
    else:
        data = read_own_data(
            args.images,
            args.masks,
            seed=args.seed,
            classes=options.read_classes(args),
        )
        rare = () if args.balance else data.rare()
    for note in data.notes:
        print(note)
    print(target.table(data))
    for line in data.warnings():
        print(f'WARNING: {line}.')
    if rare:
        print(
            f'WARNING: {", ".join(rare)}: few of the pixels. --balance '
            'crops more often around rare classes.'
        )
    return data
