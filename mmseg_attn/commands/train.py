# Copyright (c) mmseg_attn contributors.
"""``train``: train the model of a config, or one on your own pictures."""

import argparse

from ..errors import UserError
from ..files import find_best
from ..progress import quiet_imports
from . import options
from .own_pictures import add_own_pictures, train_own_pictures

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
    add_own_pictures(parser.add_argument_group('your own pictures, no config'))
    _add_run(parser)


def _add_run(parser: argparse.ArgumentParser) -> None:
    """Add the options of a training with a config."""
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


def main(args: argparse.Namespace) -> None:
    """Train, and validate as the config says.

    Raises:
        UserError: Neither a config nor pictures are given, or both.
    """
    if (args.config is None) == (args.images is None):
        raise UserError(
            'expected a config, or --images and --masks (or --coco) of your '
            'own.'
        )
    _check_door(args)
    if args.images:
        train_own_pictures(args)
        return
    cfg = options.read_config(args)
    with quiet_imports():
        from mmengine.dist import is_main_process

        from ..apis.training import scale_learning_rate, use_mixed_precision
        from ..engine.resume import find_latest
        from ..engine.runner import build_runner, end_processes

    if args.resume:
        cfg.resume = args.resume
    if args.amp:
        use_mixed_precision(cfg)
    if args.auto_scale_lr:
        scale_learning_rate(cfg)
    build_runner(cfg).train()
    if cfg.get('test_cfg') and is_main_process():
        weights = find_best(cfg.work_dir) or find_latest(cfg.work_dir)
        changes = options.given_changes(args)
        options.print_next('test', args.config, weights, *changes)
    end_processes()


def _check_door(args: argparse.Namespace) -> None:
    """Refuse what the other way to train takes, and this one would ignore."""
    other = argparse.ArgumentParser()
    if args.images:
        _add_run(other)
        advice = 'is for a config: run train OUT/config.py with it'
    else:
        add_own_pictures(other.add_argument_group())
        advice = 'is for --images, your own pictures'
    for name, default in vars(other.parse_args([])).items():
        if getattr(args, name) != default:
            raise UserError(f'{options.option_of(name)} {advice}.')
