# Learns one pair by heart: `tools/dataset_converters/stereo_motorcycle.py
# data/motorcycle` writes it.
_base_ = ['./psmnet-ea-volume_1xb2-400_demo-stereo-96x192.py']
data_root = 'data/motorcycle'
train_pipeline = [
    dict(type='mmseg_attn.LoadStereoPair'),
    dict(type='mmseg_attn.LoadDisparity'),
    dict(type='RandomCrop', crop_size=(128, 256)),
    dict(type='mmseg_attn.PackStereoInputs'),
]
model = dict(max_disparity=64, features=dict(pool_sizes=(32, 16, 8, 4)))
train_dataloader = dict(
    dataset=dict(data_root=data_root, pipeline=train_pipeline)
)
val_dataloader = dict(batch_size=1, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
max_iters = 500
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
