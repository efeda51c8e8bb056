_base_ = [
    './lanet_r50-d8_4xb4-80k_ade20k-512x512.py',
    '../_base_/models/swin-tiny.py',
]
model = _base_.swin_tiny.model
optim_wrapper = _base_.swin_tiny.optim_wrapper
param_scheduler = _base_.swin_tiny.param_scheduler
