_base_ = [
    './caanet_r50-d8_4xb4-30k_pascal-context-59-513x513.py',
    '../_base_/models/efficientnet-d8.py',
]
model = dict(
    pretrained=None,
    backbone=dict(_delete_=True, arch='b7', **_base_.efficientnet),
    decode_head=dict(in_channels=640),
    auxiliary_head=dict(in_channels=640),
)
