# CCNet3D on CamVid. The paper gives no recipe: crop, augmentation and schedule
# are those of ../ccnet/ccnet_r50-d8_4xb2-20k_camvid-720x720.py. To begin with
# a CCNet trained on Cityscapes, as the paper may have:
#   --cfg-options load_from=CHECKPOINT
_base_ = [
    '../_base_/models/ccnet3d_r50-d8.py',
    '../_base_/datasets/camvid-clips.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_20k.py',
]
crop_size = (720, 720)
model = dict(
    data_preprocessor=dict(size=crop_size),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11),
)
