# Plain CCNet on LIP: the hosts' network, CE2P's schedule and augmentation.
_base_ = [
    '../_base_/models/ccnet_r50-d8.py',
    '../_base_/datasets/lip.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_ce2p-115k.py',
]
crop_size = (473, 473)
model = dict(
    data_preprocessor=dict(size=crop_size),
    decode_head=dict(num_classes=20, align_corners=True),
    auxiliary_head=dict(num_classes=20, align_corners=True),
)
tta_model = dict(
    type='mmseg_attn.MirrorTTAModel', swap_labels={{_base_.swap_labels}}
)
