# The authors' network and losses on ADE20K. Sizes and schedule are those of
# CSAIL's toolbox; the crop is the hosts', where the toolbox pads.
_base_ = [
    '../_base_/models/ccnet-paper_r50-d8.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_csail-100k.py',
]
crop_size = (512, 512)
model = dict(
    data_preprocessor=dict(size=crop_size),
    decode_head=dict(
        num_classes=150,
        loss_ccl=dict(
            type='mmseg_attn.CategoryConsistentLoss', align_corners=True
        ),
        ccl_channels=16,
    ),
    auxiliary_head=dict(num_classes=150),
)
# The longer side has at most 1000 pixels, the shorter one of these.
scales = [(1000, side) for side in (300, 375, 450, 525, 600)]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomChoiceResize', scales=scales, keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=scale, keep_ratio=True)
                for scale in scales
            ],
            [dict(type='RandomFlip', prob=p) for p in (0.0, 1.0)],
            [dict(type='LoadAnnotations', reduce_zero_label=True)],
            [dict(type='PackSegInputs')],
        ],
    ),
]
