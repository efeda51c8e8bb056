# Copyright (c) mmseg_attn contributors.
"""Test a model of MMSegmentation or MMDetection."""

import argparse
import os
import sys
from contextlib import nullcontext

from mmengine.config import ConfigDict, DictAction

from mmseg_attn.configs import load_config
from mmseg_attn.errors import UserError, run_command
from mmseg_attn.progress import quiet_imports


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument(
        '--work-dir',
        help='folder for the log and the metrics '
        '(default: the one of the config, else work_dirs/CONFIG)',
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test each picture flipped and in several scales, and merge',
    )
    parser.add_argument(
        '--slide',
        nargs=2,
        type=parse_size,
        metavar=('CROP', 'STRIDE'),
        help='predict in overlapping windows, e.g. 769 512 or 512x1024 '
        '340x680 (height x width)',
    )
    parser.add_argument(
        '--out',
        help='save the predictions: a folder for masks (MMSegmentation), a '
        '.pkl file (MMDetection)',
    )
    parser.add_argument('--show-dir', help='folder for painted pictures')
    parser.add_argument(
        '--show', action='store_true', help='show painted pictures'
    )
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        help='seconds that --show shows a picture (default: 2)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change entries of the config, e.g. test_dataloader.batch_size=1',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started the processes (default: none, a single one)',
    )
    # torch.distributed.launch passes it; torchrun sets the variable instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def parse_size(text: str) -> tuple[int, int]:
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


def main() -> None:
    args = parse_args()
    with quiet_imports():  # only now: --help is there at once
        from mmseg_attn.apis.tasks import task_of
        from mmseg_attn.engine.runner import build_runner, end_processes
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    cfg.load_from, cfg.resume = args.checkpoint, False
    task = task_of(cfg)
    if args.show or args.show_dir:
        task.draw_tests(cfg, args.show_dir)
        if args.show:
            hook = cfg.default_hooks.visualization
            hook.update(show=True, wait_time=args.wait_time)
    if args.slide:
        if not task.slides:
            raise UserError('--slide is for segmentors.')
        crop, stride = args.slide
        if stride[0] > crop[0] or stride[1] > crop[1]:
            raise UserError(
                f'--slide: a stride of {stride} leaves gaps between windows '
                f'of {crop}: expected one no larger.'
            )
        cfg.model.test_cfg = ConfigDict(
            mode='slide', crop_size=args.slide[0], stride=args.slide[1]
        )
    if args.tta:
        task.add_tta(cfg)
    saving = task.save_tests(cfg, args.out) if args.out else nullcontext()
    with saving:
        runner = build_runner(cfg, train=False)
        runner.test()
    del runner
    end_processes()


if __name__ == '__main__':
    sys.exit(run_command(main))
