# Copyright (c) mmseg_attn contributors.
"""``train``: train the model of a config."""

import argparse
import os

from ..configs import load_config
from ..progress import quiet_imports
from . import options

# What the hosts log is what a training says.
LOGS = True
STOPPED = 'Stopped. Go on with --resume.'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    options.add_config(parser)
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
    """Train, and validate as the config says."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config, options.read_options(args.cfg_options))
    with quiet_imports():
        from ..apis.training import scale_learning_rate, use_mixed_precision
        from ..engine.runner import build_runner, end_processes

    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    if args.resume:
        cfg.resume = args.resume
    if args.amp:
        use_mixed_precision(cfg)
    if args.auto_scale_lr:
        scale_learning_rate(cfg)
    build_runner(cfg).train()
    end_processes()
