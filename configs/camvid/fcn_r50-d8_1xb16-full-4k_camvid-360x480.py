_base_ = [
    '../_base_/models/fcn_r50-d8.py',
    '../_base_/datasets/camvid-480x360.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_camvid-full.py',
]
crop_size = (360, 480)
# As of the small ones, see fcn_r18-small_1xb8-2k_camvid-240x320.py.
class_weight = [
    *(0.88, 0.75, 3.63, 0.64, 1.70, 1.15),
    *(3.32, 3.39, 1.49, 4.50, 6.66),
]
model = dict(
    data_preprocessor=dict(size=crop_size),
    pretrained=None,
    decode_head=dict(
        num_classes=11, loss_decode=dict(class_weight=class_weight)
    ),
    auxiliary_head=dict(
        num_classes=11, loss_decode=dict(class_weight=class_weight)
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
