# Clips of CamVid. How the paper takes its clips is not known: here they are
# labelled pictures of one sequence, 30 frames (a second) apart, which is all
# that the public folders hold: five of them span four seconds. With the
# videos' own frames, which tools/dataset_converters/camvid_frames.py takes:
#   data_prefix=dict(frame_path='frames'), frame_step=1
dataset_type = 'mmseg_attn.CamVidClipDataset'
data_root = 'data/camvid'
crop_size = (720, 720)
frames, frame_step = 5, 30
train_pipeline = [
    dict(type='mmseg_attn.LoadClip'),
    dict(type='LoadAnnotations'),
    dict(
        type='mmseg_attn.ClipTransform',
        transforms=[
            dict(
                type='RandomResize',
                scale=(960, 720),
                ratio_range=(0.5, 2.0),
                keep_ratio=True,
            ),
            dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion'),
        ],
    ),
    dict(type='mmseg_attn.PackClipInputs'),
]
test_pipeline = [
    dict(type='mmseg_attn.LoadClip'),
    dict(
        type='mmseg_attn.ClipTransform',
        transforms=[dict(type='Resize', scale=(960, 720), keep_ratio=True)],
    ),
    # After the resizing: the labels are compared at their own size.
    dict(type='LoadAnnotations'),
    dict(type='mmseg_attn.PackClipInputs'),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='images/train', seg_map_path='annotations/train'
        ),
        frames=frames,
        frame_step=frame_step,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='images/val', seg_map_path='annotations/val'
        ),
        frames=frames,
        frame_step=frame_step,
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='images/test', seg_map_path='annotations/test'
        ),
        frames=frames,
        frame_step=frame_step,
        pipeline=test_pipeline,
    ),
)

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
