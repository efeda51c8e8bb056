# Copyright (c) mmseg_attn contributors.
"""Make a ready config for pictures of your own with COCO annotations.

Checks the annotations, splits them where there is one file alone, and writes
``OUT/annotations/{train,val}.json`` and ``OUT/config.py``: a packaged
detector with the classes of the file, which trains as any config does, by
default into ``OUT/work_dir``. The pictures stay where they are.
"""

import argparse
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config, ConfigDict, DictAction

from mmseg_attn.configs import load_config
from mmseg_attn.errors import UserError, run_command
from mmseg_attn.files import whole
from mmseg_attn.progress import quiet_imports

with quiet_imports():
    from mmseg_attn.apis.tasks import DETECTOR, check_task
    from mmseg_attn.datasets.coco import (
        CocoReport,
        check_coco,
        check_usable,
        read_coco,
    )
    from mmseg_attn.engine.runner import build_runner
    from mmseg_attn.visualization.overlay import make_palette


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
    masks = 'mask_head' in cfg.model.get('roi_head', {})
    folders = {
        'train': args.images,
        'val': args.val_images or args.images,
    }
    report = check_coco(args.annotations, args.images, masks=masks, sizes=True)
    check_usable({args.annotations: report})
    notes = report.warnings()
    contents = {'train': read(args.annotations)}
    if args.val_annotations:
        notes += check_coco(
            args.val_annotations,
            folders['val'],
            classes=report.categories,
            masks=masks,
            ordered=False,
            sizes=True,
        ).warnings()
        contents['val'] = read(args.val_annotations)
        # MMDetection numbers the classes by the file.
        places = {name: i for i, name in enumerate(report.categories)}
        contents['val']['categories'].sort(
            key=lambda category: places.get(category['name'], len(places))
        )
    else:
        contents = split(contents['train'], args.val_share, args.seed)
    for name, content in contents.items():
        if not content['annotations']:
            raise UserError(
                f'none of the {len(content["images"])} pictures for {name} '
                'has an annotation: annotate more, or try another --seed.'
            )
    for name, content in contents.items():
        with whole(args.out / 'annotations' / f'{name}.json') as path:
            path.write_text(json.dumps(content), encoding='utf-8')
    fill(cfg, args.out, folders, report.categories, args.size)
    cfg.work_dir = os.path.abspath(args.out / 'work_dir')
    config = args.out / 'config.py'
    with whole(config) as path:
        cfg.dump(path)
    show(report, contents)
    for line in notes:
        print(f'Note: {line}')
    print(f'Config: {config}')
    if args.train:
        build_runner(load_config(config)).train()


def read(path: Path) -> dict:
    """Read an annotation file, and add what pycocotools asks beyond it.

    Args:
        path: The file.

    Returns:
        Its content. Annotations are numbered from 1 and have iscrowd, which
        not all programs write.
    """
    content = read_coco(path)
    for number, item in enumerate(content['annotations'], start=1):
        item.update(id=number, iscrowd=int(bool(item.get('iscrowd'))))
    return content


def split(content: dict, share: float, seed: int) -> dict[str, dict]:
    """Draw pictures to validate with.

    Args:
        content: Of an annotation file.
        share: Of the pictures, 0 to 1.
        seed: Seed of the draw.

    Returns:
        'train' and 'val', each as an annotation file.

    Raises:
        UserError: There are fewer than two pictures.
    """
    images = content['images']
    if len(images) < 2:
        raise UserError(
            f'got {len(images)} pictures, expected at least 2: some to train '
            'on, some to validate with.'
        )
    number = min(max(round(share * len(images)), 1), len(images) - 1)
    ids = sorted(image['id'] for image in images)
    val = set(random.Random(seed).sample(ids, number))
    return {
        name: {
            **content,
            'images': [i for i in images if (i['id'] in val) is wanted],
            'annotations': [
                a
                for a in content['annotations']
                if (a['image_id'] in val) is wanted
            ],
        }
        for name, wanted in (('train', False), ('val', True))
    }


def fill(
    cfg: Config,
    out: Path,
    folders: dict[str, Path],
    classes: tuple[str, ...],
    size: int | None,
) -> None:
    """Put data and classes into a detector's config, in place.

    Args:
        cfg: The config.
        out: Folder with ``annotations``.
        folders: Folder of the pictures of 'train' and 'val'.
        classes: Names of the classes.
        size: Longer side of the resized pictures, in pixels; None keeps the
            config's.
    """
    meta = dict(
        classes=tuple(classes),
        palette=[tuple(colour) for colour in make_palette(len(classes))],
    )
    for loader, name in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        annotations = os.path.abspath(out / 'annotations' / f'{name}.json')
        dataset = cfg[f'{loader}_dataloader'].dataset
        while 'dataset' in dataset:  # wrapped
            dataset = dataset.dataset
        dataset.update(
            type='CocoDataset',
            data_root='',
            metainfo=meta,
            ann_file=annotations,
            data_prefix=dict(img=os.path.abspath(folders[name]) + os.sep),
        )
        for step in dataset.pipeline:
            if size and step['type'] == 'Resize':
                step.update(scale=(size, size), keep_ratio=True)
        if name == 'val':
            cfg[f'{loader}_evaluator'].ann_file = annotations
    for head in _class_heads(cfg.model):
        head.num_classes = len(classes)
    if 'auto_scale_lr' in cfg:
        # That of the configs for COCO is meant for eight GPUs.
        cfg.auto_scale_lr.enable = True


def _class_heads(config: object) -> Iterator[ConfigDict]:
    if isinstance(config, dict):
        for key, value in config.items():
            heads = value if isinstance(value, list) else [value]
            if key in ('bbox_head', 'mask_head'):
                yield from (h for h in heads if 'num_classes' in h)
        roi_head = config.get('roi_head')
        if roi_head:
            yield from _class_heads(roi_head)


def show(report: CocoReport, contents: dict[str, dict]) -> None:
    for name, content in contents.items():
        print(
            f'{name}: {len(content["images"])} pictures, '
            f'{len(content["annotations"])} instances'
        )
    for name in report.categories:
        print(
            f'  {name}: {report.instances[name]} instances in '
            f'{report.pictures[name]} pictures'
        )


if __name__ == '__main__':
    run_command(main)
