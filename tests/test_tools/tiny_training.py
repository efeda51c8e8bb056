# Copyright (c) mmseg_attn contributors.
"""A dataset and a config so small that a training takes seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config

ROOT = Path(__file__).parents[2]
CLASSES = ('ground', 'box', 'bar')


def write_dataset(root: Path, pictures: int = 8, side: int = 48) -> Path:
    """Write pictures of a bright box and a dark bar, and their masks."""
    random = np.random.default_rng(0)
    for split in ('train', 'val'):
        for kind in ('images', 'masks'):
            (root / kind / split).mkdir(parents=True)
        for number in range(pictures):
            image = random.integers(90, 130, (side, side, 3), dtype=np.uint8)
            mask = np.zeros((side, side), np.uint8)
            y, x = random.integers(0, side - 16, 2)
            mask[y : y + 16, x : x + 16] = 1
            row = int(random.integers(0, side - 6))
            mask[row : row + 6] = 2
            image[mask == 1] += 100
            image[mask == 2] -= 80
            cv2.imwrite(str(root / f'images/{split}/{number}.png'), image)
            cv2.imwrite(str(root / f'masks/{split}/{number}.png'), mask)
    return root


def tiny_config(data: Path, work_dir: Path, **options) -> Config:
    """Make a config; options are merged as by --cfg-options."""
    norm = dict(type='GN', num_groups=4)
    train = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations'),
        dict(
            type='RandomResize',
            scale=(48, 48),
            ratio_range=(0.8, 1.5),
            keep_ratio=True,
        ),
        dict(type='RandomCrop', crop_size=(32, 32)),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PhotoMetricDistortion'),
        dict(type='PackSegInputs'),
    ]
    test = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(48, 48), keep_ratio=True),
        dict(type='LoadAnnotations'),
        dict(type='PackSegInputs'),
    ]

    def loader(split: str, pipeline: list, sampler: dict) -> dict:
        return dict(
            batch_size=2,
            num_workers=0,
            sampler=sampler,
            dataset=dict(
                type='BaseSegDataset',
                data_root=str(data),
                data_prefix=dict(
                    img_path=f'images/{split}', seg_map_path=f'masks/{split}'
                ),
                img_suffix='.png',
                metainfo=dict(
                    classes=CLASSES,
                    palette=[[0, 0, 0], [255, 0, 0], [0, 255, 0]],
                ),
                pipeline=pipeline,
            ),
        )

    in_order = dict(type='DefaultSampler', shuffle=False)
    model = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor',
            mean=[110.0] * 3,
            std=[50.0] * 3,
            bgr_to_rgb=True,
            size=(32, 32),
            seg_pad_val=255,
        ),
        backbone=dict(
            type='ResNetV1c',
            depth=18,
            base_channels=8,
            stem_channels=8,
            strides=(1, 2, 1, 1),
            dilations=(1, 1, 2, 4),
            norm_cfg=norm,
        ),
        decode_head=dict(
            type='mmseg_attn.CCHead',
            in_channels=64,
            in_index=3,
            channels=16,
            dropout_ratio=0.1,
            num_classes=3,
            norm_cfg=norm,
            loss_decode=dict(type='CrossEntropyLoss'),
        ),
        test_cfg=dict(mode='whole'),
    )
    cfg = Config(
        dict(
            default_scope='mmseg',
            model=model,
            train_dataloader=loader(
                'train', train, dict(type='InfiniteSampler', shuffle=True)
            ),
            val_dataloader=loader('val', test, in_order),
            test_dataloader=loader('val', test, in_order),
            val_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
            test_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
            train_cfg=dict(
                type='IterBasedTrainLoop', max_iters=8, val_interval=4
            ),
            val_cfg=dict(type='ValLoop'),
            test_cfg=dict(type='TestLoop'),
            optim_wrapper=dict(
                type='OptimWrapper',
                optimizer=dict(type='SGD', lr=0.05, momentum=0.9),
            ),
            param_scheduler=[
                dict(type='PolyLR', power=0.9, eta_min=1e-4, by_epoch=False)
            ],
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=1),
                checkpoint=dict(
                    type='CheckpointHook', interval=2, by_epoch=False
                ),
                visualization=dict(type='SegVisualizationHook'),
            ),
            env_cfg=dict(
                mp_cfg=dict(mp_start_method='fork'),
                dist_cfg=dict(backend='nccl'),
            ),
            visualizer=dict(
                type='SegLocalVisualizer',
                vis_backends=[dict(type='LocalVisBackend')],
            ),
            log_processor=dict(window_size=1, by_epoch=False),
            randomness=dict(seed=3),
            work_dir=str(work_dir),
        )
    )
    cfg.merge_from_dict(options)
    return cfg


def command(tool: str, *arguments: object) -> list[str]:
    """Make the command line of a tool."""
    path = ROOT / 'tools' / f'{tool}.py'
    return [sys.executable, str(path), *map(str, arguments)]


def environment() -> dict[str, str]:
    """One thread per process, and the package of this checkout."""
    paths = [str(ROOT), os.environ.get('PYTHONPATH', '')]
    return dict(
        os.environ,
        PYTHONPATH=os.pathsep.join(filter(None, paths)),
        OMP_NUM_THREADS='1',
        MKL_NUM_THREADS='1',
        CUDA_VISIBLE_DEVICES='',
    )


def run(arguments: list[str], succeeds: bool = True) -> str:
    """Run a command and return what it printed."""
    done = subprocess.run(
        arguments, env=environment(), capture_output=True, text=True
    )
    ends = f'{done.stdout[-2000:]}\n{done.stderr[-4000:]}'
    assert (done.returncode == 0) == succeeds, ends
    return done.stdout + done.stderr


def losses(work_dir: Path) -> dict[int, float]:
    """Read the loss of each iteration; the last record counts."""
    found = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if 'loss' in record:
                found[record['step']] = record['loss']
    return found
