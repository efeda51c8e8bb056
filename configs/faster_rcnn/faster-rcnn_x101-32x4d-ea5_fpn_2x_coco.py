_base_ = [
    __import__('mmdet').__path__[0]
    + '/.mim/configs/faster_rcnn/faster-rcnn_x101-32x4d_fpn_2x_coco.py',
    '../_base_/attentions/ea5.py',
]
model = dict(
    backbone=dict(
        type='mmseg_attn.AttentionBackbone',
        base='ResNeXt',
        attentions={{_base_.attentions}},
    ),
    neck=dict(
        type='mmseg_attn.AttentionNeck',
        levels={{_base_.levels}},
        layer={{_base_.layer}},
    ),
)
