_base_ = [
    '../_base_/models/isanet_hr48.py',
    '../_base_/datasets/coco-stuff10k_520x520.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_40k.py',
]
crop_size = (520, 520)
model = dict(
    data_preprocessor=dict(size=crop_size),
    decode_head=dict(
        num_classes=171,
        sampler=dict(
            type='mmseg_attn.OHEMPixelSampler', thresh=0.9, min_kept=100000
        ),
    ),
)
max_iters = 60000
optim_wrapper = dict(
    optimizer=dict(lr=0.001, weight_decay=0.0001),
    paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=10.0)}),
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
