# One module, on the level P3 of the pyramid.
_base_ = './mask-rcnn_r50-ea-p2_fpn_1x_coco.py'
model = dict(neck=dict(levels=(1,)))
