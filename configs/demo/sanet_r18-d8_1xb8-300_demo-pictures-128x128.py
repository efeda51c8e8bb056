_base_ = ['./fcn_r18-d8_1xb8-300_demo-pictures-128x128.py']
model = dict(
    decode_head=dict(
        _delete_=True,
        type='mmseg_attn.SqueezeAttentionHead',
        # The last stage, which the other heads see.
        in_channels=[128],
        in_index=[0],
        channels=64,
        fcn_channels=64,
        num_classes=2,
        dropout_ratio=0.1,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    )
)
