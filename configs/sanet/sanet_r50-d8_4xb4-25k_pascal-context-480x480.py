# The paper: 80 epochs of 4998 pictures, batch 16, lr. Chosen: crop, decay.
_base_ = [
    '../_base_/models/sanet_r50-d8.py',
    '../_base_/datasets/pascal_context.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_40k.py',
]
crop_size = (480, 480)
model = dict(
    data_preprocessor=dict(size=crop_size),
    decode_head=dict(num_classes=60),
)
max_iters = 25000
optim_wrapper = dict(
    optimizer=dict(lr=0.001, weight_decay=0.0001),
)
param_scheduler = [
    dict(
        type='PolyLR',
        eta_min=0.0,
        power=0.9,
        begin=0,
        end=max_iters,
        by_epoch=False,
    )
]
train_cfg = dict(max_iters=max_iters)
