# Scores divided in place of the softmaxes.
_base_ = './mask-rcnn_r50-ea1_fpn_1x_coco.py'
layer = dict(normalization='scaling', **_base_.layer)
model = dict(backbone=dict(attentions=[dict(stage=3, layer=layer)]))
