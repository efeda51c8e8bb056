# The folder that `python -m mmseg_attn scenes data/stereo --stereo` writes.
dataset_type = 'mmseg_attn.StereoFolder'
data_root = 'data/stereo'
pipeline = [
    dict(type='mmseg_attn.LoadStereoPair'),
    dict(type='mmseg_attn.LoadDisparity'),
    dict(type='mmseg_attn.PackStereoInputs'),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type, data_root=f'{data_root}/train', pipeline=pipeline
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type, data_root=f'{data_root}/val', pipeline=pipeline
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='mmseg_attn.DisparityMetric', max_disparity=192)
test_evaluator = val_evaluator
