_base_ = [
    '../_base_/models/fcn_r50-d8.py',
    '../_base_/datasets/camvid-480x360.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_camvid-full.py',
]
crop_size = (360, 480)
model = dict(
    data_preprocessor=dict(size=crop_size),
    pretrained=None,
    decode_head=dict(
        num_classes=11, loss_decode=dict(class_weight={{_base_.class_weight}})
    ),
    auxiliary_head=dict(
        num_classes=11, loss_decode=dict(class_weight={{_base_.class_weight}})
    ),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize',
        scale=(480, 360),
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=12,
    persistent_workers=True,
    dataset=dict(pipeline=train_pipeline),
)
