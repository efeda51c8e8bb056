_base_ = [
    '../_base_/models/psmnet.py',
    '../_base_/datasets/demo-stereo.py',
    '../_base_/schedules/schedule_demo-1k.py',
    '../_base_/default_runtime_stereo.py',
]
model = dict(
    max_disparity=32,
    # Pictures of 96 pixels are 24 high at a quarter of their size.
    features=dict(pool_sizes=(16, 8, 4, 2)),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
