# Copyright (c) mmseg_attn contributors.
"""Make a ready config for pictures of your own with COCO annotations.

Checks the annotations, splits them where there is one file alone, and writes
``OUT/annotations/{train,val}.json`` and ``OUT/config.py``: a packaged
detector with the classes of the file, which trains as any config does, by
default into ``OUT/work_dir``. The pictures stay where they are.
"""

import argparse
import os
from pathlib import Path

from mmengine.config import Config, DictAction

from mmseg_attn.configs import load_config
from mmseg_attn.errors import UserError, run_command
from mmseg_attn.files import whole
from mmseg_attn.progress import quiet_imports

with quiet_imports():
    from mmseg_attn.apis.own_coco import (
        OwnInstances,
        instance_dataset,
        instance_table,
        read_own_instances,
        set_classes,
        write_own_instances,
    )
    from mmseg_attn.apis.tasks import DETECTOR, check_task
    from mmseg_attn.engine.runner import build_runner


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('out', type=Path, help='folder to write')
    add('--images', type=Path, required=True, help='folder of the pictures')
    add(
        '--annotations',
        type=Path,
        required=True,
        help="JSON file in COCO's format",
    )
    add(
        '--val-images',
        type=Path,
        help='folder of the pictures to validate with (default: --images)',
    )
    add(
        '--val-annotations',
        type=Path,
        help='their JSON file (default: some pictures of --annotations)',
    )
    add(
        '--val-share',
        type=float,
        default=0.2,
        help='share of the pictures to validate with, where there is one '
        'file (default: %(default)s)',
    )
    add('--seed', type=int, default=0, help='of that choice')
    add(
        '--size',
        type=int,
        help='longer side of the pictures as the network sees them, in '
        "pixels (default: the config's)",
    )
    add(
        '--config',
        default='mask-rcnn_r50-ea5_fpn_1x_coco',
        help='config of a detector to start from (default: %(default)s)',
    )
    add(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change entries of that config, e.g. train_cfg.max_iters=100',
    )
    add('--train', action='store_true', help='train at once')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if not 0 < args.val_share < 1:
        raise UserError(f'--val-share must be 0 to 1, got {args.val_share}.')
    if args.size is not None and args.size < 32:
        raise UserError(f'--size must be 32 or more, got {args.size}.')
    cfg = load_config(args.config, args.cfg_options)
    check_task(cfg, DETECTOR)
    for path in (args.out / 'config.py', args.out / 'annotations'):
        if path.exists():
            raise UserError(f'{path} exists: name another folder.')
    data = read_own_instances(
        args.images,
        args.annotations,
        val_images=args.val_images,
        val_annotations=args.val_annotations,
        share=args.val_share,
        seed=args.seed,
        masks='mask_head' in cfg.model.get('roi_head', {}),
    )
    write_own_instances(data, args.out)
    fill(cfg, args.out, data, args.size)
    cfg.work_dir = os.path.abspath(args.out / 'work_dir')
    config = args.out / 'config.py'
    with whole(config) as path:
        cfg.dump(path)
    for name, content in data.contents.items():
        print(
            f'{name}: {len(content["images"])} pictures, '
            f'{len(content["annotations"])} instances'
        )
    print(instance_table(data))
    for line in data.notes + data.warnings():
        print(f'Note: {line}')
    print(f'Config: {config}')
    if args.train:
        build_runner(load_config(config)).train()


def fill(cfg: Config, out: Path, data: OwnInstances, size: int | None) -> None:
    """Put data and classes into a detector's config, in place.

    Args:
        cfg: The config.
        out: Folder with ``annotations``.
        data: What was read.
        size: Longer side of the resized pictures, in pixels; None keeps the
            config's.
    """
    for loader, name in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        dataset = cfg[f'{loader}_dataloader'].dataset
        while 'dataset' in dataset:  # wrapped
            dataset = dataset.dataset
        dataset.update(instance_dataset(data, out, name))
        for step in dataset.pipeline:
            if size and step['type'] == 'Resize':
                step.update(scale=(size, size), keep_ratio=True)
        if name == 'val':
            cfg[f'{loader}_evaluator'].ann_file = dataset.ann_file
    set_classes(cfg.model, len(data.classes))
    if 'auto_scale_lr' in cfg:
        # That of the configs for COCO is meant for eight GPUs.
        cfg.auto_scale_lr.enable = True


if __name__ == '__main__':
    run_command(main)
