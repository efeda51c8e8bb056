# One module, in res3; ea1 has it in res4.
_base_ = './mask-rcnn_r50-ea1_fpn_1x_coco.py'
model = dict(
    backbone=dict(attentions=[dict(stage=2, layer=_base_.layer)]),
)
