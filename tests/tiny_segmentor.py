# Copyright (c) mmseg_attn contributors.
"""A segmentor that learns in seconds to find red discs in noise."""

from pathlib import Path

import cv2
import numpy as np

SIZE = 64
CLASSES = ('ground', 'disc')
PALETTE = [[40, 40, 40], [250, 120, 0]]


def picture(seed, height=SIZE, width=SIZE):
    """Make a picture (H, W, 3) BGR and its mask (H, W)."""
    rng = np.random.default_rng(seed)
    image = rng.integers(90, 160, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    radius = min(height, width) // 4
    x = int(rng.integers(radius, width - radius))
    y = int(rng.integers(radius, height - radius))
    cv2.circle(mask, (x, y), radius, 1, -1)
    image[mask == 1] = (30, 30, 220)
    return image, mask


def write_dataset(root, count):
    for folder in ('images', 'masks'):
        Path(root, folder).mkdir(parents=True)
    for seed in range(count):
        image, mask = picture(seed)
        cv2.imwrite(f'{root}/images/{seed}.png', image)
        cv2.imwrite(f'{root}/masks/{seed}.png', mask)


def config_text(data_root, recurrence=2, iters=40):
    return f"""
default_scope = 'mmseg'
log_level = 'ERROR'
norm = dict(type='BN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[120., 120., 120.],
        std=[60., 60., 60.],
        bgr_to_rgb=True,
        size=({SIZE}, {SIZE}),
    ),
    backbone=dict(
        type='ResNetV1c',
        depth=18,
        base_channels=8,
        stem_channels=8,
        num_stages=2,
        strides=(1, 1),
        dilations=(1, 1),
        out_indices=(0, 1),
        norm_cfg=norm,
    ),
    decode_head=dict(
        type='mmseg_attn.CCHead',
        in_channels=16,
        in_index=1,
        channels=16,
        recurrence={recurrence},
        num_classes=2,
        norm_cfg=norm,
        dropout_ratio=0,
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=8,
        in_index=0,
        channels=8,
        num_convs=1,
        concat_input=False,
        num_classes=2,
        norm_cfg=norm,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
load = dict(type='LoadImageFromFile')
resize = dict(type='Resize', scale=({2 * SIZE}, {SIZE}), keep_ratio=True)
pack = [dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
tta_model = dict(type='SegTTAModel')
tta_pipeline = [
    load,
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale_factor=1.0, keep_ratio=True)],
            [
                dict(type='RandomFlip', prob=0.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='horizontal'),
            ],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
dataset = dict(
    type='BaseSegDataset',
    data_root={str(data_root)!r},
    metainfo=dict(classes={CLASSES!r}, palette={PALETTE!r}),
    img_suffix='.png',
    data_prefix=dict(img_path='images', seg_map_path='masks'),
)
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True, seed=0),
    dataset=dict(
        **dataset,
        pipeline=[load, *pack],
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**dataset, pipeline=[load, resize, *pack]),
)
test_pipeline = test_dataloader['dataset']['pipeline']
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(optimizer=dict(type='Adam', lr=5e-3))
train_cfg = dict(type='IterBasedTrainLoop', max_iters={iters})
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval={iters})
)
randomness = dict(seed=0)
"""
