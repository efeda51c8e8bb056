dataset_type = 'mmseg_attn.SceneFlowDataset'
data_root = 'data/sceneflow'
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
        split='train',
        pipeline=train_pipeline,
    ),
)
# EPE_batch is the official figure with batches of 8 on one GPU.
val_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='test',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='mmseg_attn.DisparityMetric', max_disparity=192)
test_evaluator = val_evaluator
