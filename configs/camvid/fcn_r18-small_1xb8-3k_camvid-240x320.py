_base_ = [
    '../_base_/models/fcn_r18-small.py',
    '../_base_/datasets/camvid-480x360.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_camvid-small.py',
]
model = dict(
    data_preprocessor=dict(size={{_base_.crop_size}}),
    decode_head=dict(
        num_classes=11, loss_decode=dict(class_weight={{_base_.class_weight}})
    ),
    auxiliary_head=dict(
        num_classes=11, loss_decode=dict(class_weight={{_base_.class_weight}})
    ),
)
