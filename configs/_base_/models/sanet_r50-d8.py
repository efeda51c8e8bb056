_base_ = ['./isanet_r50-d8.py']
model = dict(
    decode_head=dict(
        _delete_=True,
        type='mmseg_attn.SqueezeAttentionHead',
        in_channels=[256, 512, 1024, 2048],
        in_index=[0, 1, 2, 3],
        channels=128,
        dropout_ratio=0.1,
        num_classes=19,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
        # The paper's weights: 1, 0.8 (beta) and 0.2 (alpha).
        loss_decode=dict(
            type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=1.0
        ),
        loss_dense=dict(
            type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.8
        ),
        loss_presence=dict(
            type='mmseg_attn.ClassPresenceLoss', loss_weight=0.2
        ),
    ),
    # The dense prediction is the auxiliary one.
    auxiliary_head=None,
)
