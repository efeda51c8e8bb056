_base_ = [
    './mask-rcnn_r18_fpn_1xb4-1k_demo-instances-96x96.py',
    '../_base_/attentions/ea5.py',
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
