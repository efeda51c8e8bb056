_base_ = [
    __import__('mmdet').__path__[0]
    + '/.mim/configs/faster_rcnn/faster-rcnn_r101_fpn_1x_coco.py',
    '../_base_/attentions/ea7.py',
]
model = dict(
    backbone=dict(
        type='mmseg_attn.AttentionBackbone',
        attentions={{_base_.attentions}},
    ),
    neck=dict(
        type='mmseg_attn.AttentionNeck',
        levels={{_base_.levels}},
        layer={{_base_.layer}},
    ),
)
