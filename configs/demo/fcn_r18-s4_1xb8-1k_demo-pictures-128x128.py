_base_ = [
    '../_base_/models/fcn_r18-s4.py',
    '../_base_/datasets/demo-pictures.py',
    '../_base_/schedules/schedule_demo-1k.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(
        size={{_base_.crop_size}}, size_divisor=None, test_cfg=None
    ),
    decode_head=dict(
        dropout_ratio=0.1,
        num_classes=2,
        loss_decode=dict(
            _delete_=True, type='CrossEntropyLoss', avg_non_ignore=True
        ),
    ),
)
