_base_ = [
    './lanet_r50-d8_4xb2-80k_cityscapes-512x1024.py',
    '../_base_/models/swin-tiny.py',
]
model = _base_.swin_tiny.model
optim_wrapper = _base_.swin_tiny.optim_wrapper
param_scheduler = _base_.swin_tiny.param_scheduler
