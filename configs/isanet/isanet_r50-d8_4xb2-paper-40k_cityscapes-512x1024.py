_base_ = [
    '../_base_/models/isanet-paper_r50-d8.py',
    '../_base_/datasets/cityscapes_isanet.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_40k.py',
]
crop_size = (512, 1024)
model = dict(
    data_preprocessor=dict(size=crop_size),
    decode_head=dict(sampler={{_base_.sampler}}),
    auxiliary_head=dict(sampler={{_base_.sampler}}),
)
max_iters = 40000
optim_wrapper = dict(
    optimizer=dict(lr=0.01, weight_decay=0.0005),
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
