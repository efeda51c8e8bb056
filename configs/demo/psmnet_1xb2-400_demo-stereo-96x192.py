_base_ = [
    '../_base_/models/psmnet.py',
    '../_base_/datasets/demo-stereo.py',
    '../_base_/schedules/schedule_demo-1k.py',
    '../_base_/default_runtime_stereo.py',
]
model = dict(
    # The figures in PSMNet's README were seen so.
    one_batch=True,
    max_disparity=32,
    # Pictures of 96 pixels are 24 high at a quarter of their size.
    features=dict(pool_sizes=(16, 8, 4, 2)),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
max_iters = 400
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, end=20, by_epoch=False),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.01,
        begin=20,
        end=max_iters,
        by_epoch=False,
    ),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters))
