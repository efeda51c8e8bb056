# One module, on the finest level of the pyramid.
_base_ = [
    __import__('mmdet').__path__[0]
    + '/.mim/configs/mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    '../_base_/attentions/ea1.py',
]
model = dict(
    neck=dict(
        type='mmseg_attn.AttentionNeck',
        levels=(0,),
        layer={{_base_.layer}},
    ),
)
