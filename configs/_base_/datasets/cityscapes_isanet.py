# Cityscapes as the official code of ISANet has it: crops anywhere, and seven
# scales to test at.
_base_ = ['./cityscapes.py']
crop_size = (512, 1024)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize',
        scale=(2048, 1024),
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale_factor=ratio, keep_ratio=True)
                for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
            ],
            [
                dict(type='RandomFlip', prob=p, direction='horizontal')
                for p in (0.0, 1.0)
            ],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
# Its weights of the 19 classes, for the heads: bases cannot share `model`.
sampler = dict(
    type='mmseg_attn.ClassWeightPixelSampler',
    # fmt: off
    class_weight=[
        0.8373,
        0.9180,
        0.8660,
        1.0345,
        1.0166,
        0.9969,
        0.9754,
        1.0489,
        0.8786,
        1.0023,
        0.9539,
        0.9843,
        1.1116,
        0.9037,
        1.0865,
        1.0955,
        1.0865,
        1.1529,
        1.0507,
    ],
    # fmt: on
)
