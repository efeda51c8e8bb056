# The attention on the four stages of HRNet together, without auxiliary head.
_base_ = [
    __import__('mmseg').__path__[0] + '/.mim/configs/_base_/models/fcn_hr18.py'
]
model = dict(
    pretrained='open-mmlab://msra/hrnetv2_w48',
    backbone=dict(
        extra=dict(
            stage2=dict(num_channels=(48, 96)),
            stage3=dict(num_channels=(48, 96, 192)),
            stage4=dict(num_channels=(48, 96, 192, 384)),
        )
    ),
    decode_head=dict(
        _delete_=True,
        type='mmseg_attn.ISAHead',
        in_channels=[48, 96, 192, 384],
        in_index=(0, 1, 2, 3),
        input_transform='resize_concat',
        channels=512,
        isa_channels=256,
        down_factor=(8, 8),
        dropout_ratio=0.05,
        num_classes=19,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=1.0
        ),
    ),
)
