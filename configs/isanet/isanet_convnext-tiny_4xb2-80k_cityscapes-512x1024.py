_base_ = [
    './isanet_r50-d8_4xb2-80k_cityscapes-512x1024.py',
    '../_base_/models/convnext-tiny.py',
]
model = _base_.convnext_tiny.model
optim_wrapper = _base_.convnext_tiny.optim_wrapper
param_scheduler = _base_.convnext_tiny.param_scheduler
