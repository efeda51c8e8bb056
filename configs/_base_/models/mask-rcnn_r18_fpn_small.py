# Mask R-CNN at a quarter of the usual widths, without pretrained weights:
# trains from scratch within minutes on two cores.
_base_ = [
    __import__('mmdet').__path__[0]
    + '/.mim/configs/_base_/models/mask-rcnn_r50_fpn.py'
]
norm_cfg = dict(type='BN', requires_grad=True)
num_classes = 6
width = 64
sampler = dict(num=128)
proposals = dict(nms_pre=500, max_per_img=250)
model = dict(
    backbone=dict(
        depth=18,
        base_channels=32,
        stem_channels=32,
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        init_cfg=None,
    ),
    neck=dict(
        in_channels=[32, 64, 128, 256], out_channels=width, norm_cfg=norm_cfg
    ),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        anchor_generator=dict(scales=[4]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width),
        bbox_head=dict(
            in_channels=width, fc_out_channels=256, num_classes=num_classes
        ),
        mask_roi_extractor=dict(out_channels=width),
        mask_head=dict(
            num_convs=2,
            in_channels=width,
            conv_out_channels=width,
            num_classes=num_classes,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=sampler),
        rpn_proposal=proposals,
        rcnn=dict(sampler=sampler),
    ),
    test_cfg=dict(rpn=proposals),
)
