# The attention on the four stages of HRNet together, without auxiliary head,
# as the authors' code (https://github.com/openseg-group) had it in 2019: norms
# in place, whose activation is leaky, no norm after the attention's blocks, no
# bias in the classifier, aligned corners, and pictures in BGR with the means
# and deviations of RGB.
_base_ = [
    __import__('mmseg').__path__[0] + '/.mim/configs/_base_/models/fcn_hr18.py'
]
model = dict(
    data_preprocessor=dict(bgr_to_rgb=False),
    pretrained='open-mmlab://msra/hrnetv2_w48',
    backbone=dict(
        type='mmseg_attn.AlignedHRNet',
        extra=dict(
            stage2=dict(num_channels=(48, 96)),
            stage3=dict(num_channels=(48, 96, 192)),
            stage4=dict(num_channels=(48, 96, 192, 384)),
        ),
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
        attention=dict(output_norm=False),
        classifier_bias=False,
        dropout_ratio=0.05,
        num_classes=19,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        act_cfg=dict(type='LeakyReLU', negative_slope=0.01),
        align_corners=True,
        loss_decode=dict(
            type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=1.0
        ),
    ),
)
