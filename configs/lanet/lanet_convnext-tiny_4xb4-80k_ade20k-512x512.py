_base_ = [
    './lanet_r50-d8_4xb4-80k_ade20k-512x512.py',
    '../_base_/models/convnext-tiny.py',
]
model = _base_.convnext_tiny.model
optim_wrapper = _base_.convnext_tiny.optim_wrapper
param_scheduler = _base_.convnext_tiny.param_scheduler
