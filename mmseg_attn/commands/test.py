# Copyright (c) mmseg_attn contributors.
"""``test``: measure a model on the test data of a config."""

import argparse
from contextlib import nullcontext

from ..errors import UserError
from ..progress import quiet_imports
from . import checkpoints, options

# What the hosts log is what a test says.
LOGS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    options.add_config(parser)
    checkpoints.add_checkpoint(parser)
    options.add_work_dir(parser, 'the log and the metrics')
    add = parser.add_argument
    add(
        '--tta',
        action='store_true',
        help='test each picture flipped and in several scales, and merge',
    )
    add(
        '--slide',
        nargs=2,
        type=_size,
        metavar=('CROP', 'STRIDE'),
        help='predict in overlapping windows, e.g. 769 512 or 512x1024 '
        '340x680 (height x width)',
    )
    options.add_out(
        parser,
        None,
        'save the predictions: a folder for masks (MMSegmentation), a .pkl '
        'file (MMDetection)',
    )
    add('--show-dir', help='folder for painted pictures')
    add('--show', action='store_true', help='show painted pictures')
    add(
        '--wait-time',
        type=float,
        default=2,
        help='seconds that --show shows a picture (default: %(default)s)',
    )
    options.add_cfg_options(parser)
    options.add_launcher(parser)


def _size(text: str) -> tuple[int, int]:
    try:
        sides = [int(side) for side in text.split('x')]
        height, width = sides * 2 if len(sides) == 1 else sides
    except ValueError:
        height = width = 0
    if height < 1 or width < 1:
        raise argparse.ArgumentTypeError(
            f'expected N or HxW of at least 1, got {text!r}'
        )
    return height, width


def main(args: argparse.Namespace) -> None:
    """Test, and save or draw the predictions where asked.

    Raises:
        UserError: An option does not fit the task of the model.
    """
    cfg = options.read_config(args)
    with quiet_imports():
        from mmengine.dist import is_main_process

        from ..apis.streamed_test import stream_test
        from ..apis.tasks import SEGMENTOR, task_of
        from ..apis.testing import merge_views, use_windows
        from ..engine.runner import build_runner, end_processes

    cfg.load_from = checkpoints.find_weights(args.config, args.checkpoint)
    cfg.resume = False
    task = task_of(cfg)
    if args.show or args.show_dir:
        task.draw_tests(cfg, args.show_dir)
        if args.show:
            hook = cfg.default_hooks.visualization
            hook.update(show=True, wait_time=args.wait_time)
    if args.slide:
        if not task.slides:
            raise UserError('--slide is for segmentors.')
        use_windows(cfg, *args.slide)
    if args.tta:
        merge_views(cfg, task.add_views)
    saving = task.save_tests(cfg, str(args.out)) if args.out else nullcontext()
    with saving:
        runner = build_runner(cfg, train=False)
        if task is SEGMENTOR and not args.tta:
            stream_test(runner.model, cfg)
        runner.test()
    del runner
    if task is SEGMENTOR and is_main_process():
        given = args.config, args.checkpoint, *options.given_changes(args)
        options.print_next('worst', *given)
    end_processes()
