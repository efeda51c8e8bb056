_base_ = [
    __import__('mmdet').__path__[0]
    + '/.mim/configs/faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    '../_base_/attentions/nl.py',
]
model = dict(
    backbone=dict(
        type='mmseg_attn.AttentionBackbone',
        attentions={{_base_.attentions}},
    ),
)
