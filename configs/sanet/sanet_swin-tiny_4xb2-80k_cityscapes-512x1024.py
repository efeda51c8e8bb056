_base_ = [
    './sanet_r50-d8_4xb2-80k_cityscapes-512x1024.py',
    '../_base_/models/swin-tiny.py',
]
model = dict(
    pretrained=None,
    backbone=_base_.swin_tiny.model.backbone,
    decode_head=dict(in_channels=[96, 192, 384, 768], grid=1),
)
optim_wrapper = _base_.swin_tiny.optim_wrapper
param_scheduler = _base_.swin_tiny.param_scheduler
