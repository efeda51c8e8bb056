_base_ = ['./fcn_r18-d8_1xb8-300_demo-pictures-128x128.py']
model = dict(
    decode_head=dict(
        _delete_=True,
        type='mmseg_attn.ISAHead',
        in_channels=128,
        in_index=0,
        channels=64,
        isa_channels=32,
        # Near the fourth root of the map's positions.
        down_factor=(4, 4),
        num_classes=2,
        dropout_ratio=0.1,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    )
)
