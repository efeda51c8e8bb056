# The folder that `python -m mmseg_attn scenes data/clips --clips 5` writes.
dataset_type = 'mmseg_attn.ClipFolderDataset'
data_root = 'data/clips'
frames = 5
train_pipeline = [
    dict(type='mmseg_attn.LoadClip'),
    dict(type='LoadAnnotations'),
    dict(
        type='mmseg_attn.ClipTransform',
        transforms=[
            # Rows stay rows and columns stay columns.
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            dict(type='RandomFlip', prob=0.5, direction='vertical'),
        ],
    ),
    dict(type='mmseg_attn.PackClipInputs'),
]
test_pipeline = [
    dict(type='mmseg_attn.LoadClip'),
    dict(type='LoadAnnotations'),
    dict(type='mmseg_attn.PackClipInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='images/train',
            seg_map_path='masks/train',
            frame_path='frames/train',
        ),
        frames=frames,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='images/val',
            seg_map_path='masks/val',
            frame_path='frames/val',
        ),
        frames=frames,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='mmseg_attn.GroupIoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
