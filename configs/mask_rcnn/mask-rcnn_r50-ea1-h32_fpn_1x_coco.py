# 32 heads in place of one.
_base_ = './mask-rcnn_r50-ea1_fpn_1x_coco.py'
layer = dict(num_heads=32, **_base_.layer)
model = dict(backbone=dict(attentions=[dict(stage=3, layer=layer)]))
