_base_ = [
    '../_base_/models/lanet_r50-d8.py',
    '../_base_/datasets/gid5.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_80k.py',
]
crop_size = (256, 256)
model = dict(
    data_preprocessor=dict(size=crop_size),
    decode_head=dict(num_classes=5),
    auxiliary_head=dict(num_classes=5),
)
