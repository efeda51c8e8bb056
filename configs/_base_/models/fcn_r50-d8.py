_base_ = [
    __import__('mmseg').__path__[0]
    + '/.mim/configs/_base_/models/ccnet_r50-d8.py'
]
# CCNet's without its attention: the baseline of the others.
model = dict(
    decode_head=dict(
        _delete_=True,
        type='FCNHead',
        in_channels=2048,
        in_index=3,
        channels=512,
        dropout_ratio=0.1,
        num_classes=19,
        norm_cfg={{_base_.norm_cfg}},
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss'),
    )
)
