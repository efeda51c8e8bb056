# Copyright (c) mmseg_attn contributors.
"""Test a model of MMSegmentation or MMDetection."""

import argparse
import copy
import os
import sys

from mmengine.config import Config, ConfigDict, DictAction

from mmseg_attn.configs import is_detector, is_of_clips, is_stereo
from mmseg_attn.engine.data_checks import check_output_folder
from mmseg_attn.engine.runner import build_runner, end_processes
from mmseg_attn.errors import UserError, run_command

# Scales of MMSegmentation's own test-time augmentation.
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


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
        raise argparse.ArgumentTypeError(
            f'expected N or HxW, got {text!r}'
        ) from None
    return height, width


def main() -> None:
    args = parse_args()
    if not os.path.isfile(args.config):
        raise UserError(f'config {args.config} does not exist.')
    cfg = Config.fromfile(args.config)
    cfg.launcher = args.launcher
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir:
        cfg.work_dir = args.work_dir
    cfg.load_from, cfg.resume = args.checkpoint, False
    detection = is_detector(cfg)
    if args.show or args.show_dir:
        draw(cfg, args, detection)
    if args.slide and (detection or is_stereo(cfg)):
        raise UserError('--slide is for segmentors.')
    if args.slide:
        cfg.model.test_cfg = ConfigDict(
            mode='slide', crop_size=args.slide[0], stride=args.slide[1]
        )
    if args.tta:
        add_tta(cfg, detection)
    if args.out and not detection:
        save_masks(cfg, args.out)
    runner = build_runner(cfg, train=False)
    if args.out and detection:
        dump_detections(runner, args.out)
    runner.test()
    del runner
    end_processes()


def draw(cfg: Config, args: argparse.Namespace, detection: bool) -> None:
    hook = cfg.get('default_hooks', {}).get('visualization')
    if not hook:
        raise UserError(
            '--show and --show-dir need a visualization hook: default_hooks='
            "dict(visualization=dict(type='SegVisualizationHook')), for "
            "MMDetection type='DetVisualizationHook'."
        )
    if is_of_clips(cfg):
        hook.type = 'mmseg_attn.ClipVisualizationHook'
    hook.update(draw=True, interval=1)
    if args.show:
        hook.update(show=True, wait_time=args.wait_time)
    if args.show_dir:
        check_output_folder(cfg, args.show_dir)
        if detection:
            hook.test_out_dir = os.path.abspath(args.show_dir)
        else:
            cfg.visualizer.save_dir = args.show_dir


def add_tta(cfg: Config, detection: bool) -> None:
    """Wrap model and pipeline for test-time augmentation."""
    loader = cfg.test_dataloader.dataset
    while 'dataset' in loader:
        loader = loader.dataset
    if 'tta_model' not in cfg:
        cfg.tta_model = ConfigDict(type='SegTTAModel')
        if detection:
            nms = dict(type='nms', iou_threshold=0.5)
            cfg.tta_model = ConfigDict(
                type='DetTTAModel', tta_cfg=dict(nms=nms, max_per_img=100)
            )
    if 'tta_pipeline' not in cfg:
        cfg.tta_pipeline = default_tta_pipeline(loader.pipeline, detection)
    loader.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def default_tta_pipeline(pipeline: list, detection: bool) -> list:
    """Make variants of a test pipeline: its size in SCALES, and a flip."""
    flips = [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)]
    types = [step['type'].split('.')[-1] for step in pipeline]
    if 'Resize' not in types:
        raise UserError(
            '--tta needs tta_pipeline in the config: one could not be made '
            'from a test pipeline without Resize.'
        )
    place = types.index('Resize')
    head, tail = pipeline[:place], pipeline[place + 1 :]
    resize = pipeline[place]
    if detection:
        # Boxes are merged by score, so that one scale is the usual choice.
        pack = dict(tail[-1])
        keys = pack.get(
            'meta_keys',
            ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
        )
        pack['meta_keys'] = (*keys, 'flip', 'flip_direction')
        variants = [[resize], flips, *([step] for step in tail[:-1]), [pack]]
    else:
        for flip in flips:
            flip['direction'] = 'horizontal'
        sizes = [scaled(resize, ratio) for ratio in SCALES]
        variants = [sizes, flips, *([step] for step in tail)]
    return [*head, dict(type='TestTimeAug', transforms=variants)]


def scaled(resize: dict, ratio: float) -> dict:
    resize = copy.deepcopy(resize)
    if resize.get('scale') is not None:
        scale = resize['scale']
        sides = [scale] * 2 if isinstance(scale, int) else scale
        resize['scale'] = tuple(round(side * ratio) for side in sides)
    else:
        factor = resize.get('scale_factor', 1.0)
        sides = [factor] * 2 if isinstance(factor, (int, float)) else factor
        resize['scale_factor'] = tuple(side * ratio for side in sides)
    return resize


def save_masks(cfg: Config, folder: str) -> None:
    check_output_folder(cfg, folder)
    evaluators = cfg.test_evaluator
    if isinstance(evaluators, dict):
        evaluators = [evaluators]
    savers = [item for item in evaluators if saves_masks(item.type)]
    if not savers:
        raise UserError(
            '--out needs a test_evaluator that can save masks, such as '
            f'IoUMetric, got {", ".join(item.type for item in evaluators)}.'
        )
    for evaluator in savers:
        evaluator.output_dir = folder
        evaluator.keep_results = True


def saves_masks(name: str) -> bool:
    from mmseg.evaluation import CityscapesMetric, IoUMetric
    from mmseg.registry import METRICS

    kind = METRICS.get(name)
    return kind is not None and issubclass(kind, (IoUMetric, CityscapesMetric))


def dump_detections(runner, path: str) -> None:
    from mmdet.evaluation import DumpDetResults

    if not path.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out needs a .pkl file for detections, got {path}.')
    runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=path))


if __name__ == '__main__':
    sys.exit(run_command(main))
