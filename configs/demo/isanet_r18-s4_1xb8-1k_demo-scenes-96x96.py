_base_ = ['./fcn_r18-s4_1xb8-1k_demo-scenes-96x96.py']
model = dict(
    decode_head=dict(
        _delete_=True,
        type='mmseg_attn.ISAHead',
        in_channels=32,
        in_index=0,
        channels=64,
        isa_channels=32,
        # Near the fourth root of the map's positions.
        down_factor=(5, 5),
        num_classes=7,
        dropout_ratio=0,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss',
            # The ground covers nine tenths of a scene.
            class_weight=[0.2] + 6 * [1.0],
        ),
    )
)
