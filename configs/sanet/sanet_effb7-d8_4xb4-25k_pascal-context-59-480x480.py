_base_ = [
    './sanet_r50-d8_4xb4-25k_pascal-context-59-480x480.py',
    '../_base_/models/efficientnet-d8.py',
]
model = dict(
    pretrained=None,
    backbone=dict(_delete_=True, arch='b7', **_base_.efficientnet),
    decode_head=dict(in_channels=[48, 80, 224, 640]),
)
