# ImageNet's mean and deviation, as the official code has them.
data_preprocessor = dict(
    type='mmseg_attn.ClipDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    size_divisor=16,
)
model = dict(
    type='mmseg_attn.PSMNet',
    data_preprocessor=data_preprocessor,
    max_disparity=192,
    features=dict(type='mmseg_attn.PSMNetFeatures'),
    aggregation=dict(type='mmseg_attn.StackedHourglass'),
    loss_disparity=dict(
        type='mmseg_attn.DisparityLoss',
        max_disparity=192,
        weights=(0.5, 0.7, 1.0),
    ),
)
