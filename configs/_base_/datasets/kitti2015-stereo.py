# The first 160 of the 200 annotated pairs to train, the last 40 to validate.
dataset_type = 'mmseg_attn.StereoFolder'
data_root = 'data/kitti2015/training'
data_prefix = dict(left='image_2', right='image_3', disparity='disp_occ_0')
crop_size = (256, 512)
train_pipeline = [
    dict(type='mmseg_attn.LoadStereoPair'),
    dict(type='mmseg_attn.LoadDisparity'),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='mmseg_attn.PackStereoInputs'),
]
test_pipeline = [
    dict(type='mmseg_attn.LoadStereoPair'),
    dict(type='mmseg_attn.LoadDisparity'),
    dict(type='mmseg_attn.PackStereoInputs'),
]
train_dataloader = dict(
    batch_size=3,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=data_prefix,
        indices=160,
        pipeline=train_pipeline,
    ),
)
# The pictures differ in size.
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=data_prefix,
        indices=-40,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='mmseg_attn.DisparityMetric', max_disparity=float('inf')
)
test_evaluator = val_evaluator
