# Copyright (c) mmseg_attn contributors.
"""Train a model of MMSegmentation or MMDetection."""

import argparse
import os
import sys

from mmengine.config import Config, DictAction

from mmseg_attn.configs import load_config
from mmseg_attn.errors import UserError, run_command
from mmseg_attn.progress import quiet_imports


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir',
        help='folder for logs and checkpoints '
        '(default: the one of the config, else work_dirs/CONFIG)',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint; without a path from the newest one in '
        'the work folder, or from the start where there is none',
    )
    parser.add_argument(
        '--amp',
        action='store_true',
        help='mixed precision: float16 on a GPU, bfloat16 on the CPU',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the total batch size',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change entries of the config, e.g. train_cfg.max_iters=100 '
        'or model.decode_head.dilations="[1,2]"',
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


def main() -> None:
    args = parse_args()
    with quiet_imports():  # only now: --help is there at once
        from mmseg_attn.engine.runner import build_runner, end_processes
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    if args.resume:
        cfg.resume = args.resume
    if args.amp:
        use_amp(cfg)
    if args.auto_scale_lr:
        scale_lr(cfg)
    build_runner(cfg).train()
    end_processes()


def use_amp(cfg: Config) -> None:
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if kind == 'OptimWrapper':
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    elif kind != 'AmpOptimWrapper':
        raise UserError(
            f'--amp works with optim_wrapper.type OptimWrapper, not {kind}.'
        )


def scale_lr(cfg: Config) -> None:
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise UserError(
            '--auto-scale-lr needs the total batch size that the learning '
            'rate of the config is meant for. Name it: --cfg-options '
            'auto_scale_lr.base_batch_size=16'
        )
    cfg.auto_scale_lr.enable = True


if __name__ == '__main__':
    sys.exit(run_command(main))
