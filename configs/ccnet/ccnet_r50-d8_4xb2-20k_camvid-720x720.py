# CCNet on single CamVid frames. The paper gives no recipe for CamVid: crop,
# augmentation and schedule are the hosts' for Cityscapes, halved.
_base_ = [
    '../_base_/models/ccnet_r50-d8.py',
    '../_base_/datasets/camvid.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_20k.py',
]
crop_size = (720, 720)
model = dict(
    data_preprocessor=dict(size=crop_size),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11),
)
