# The parsing network of CCNet on LIP: CE2P's, its context module replaced.
_base_ = ['./ccnet-paper_r50-d8.py']
model = dict(
    backbone=dict(dilations=(1, 1, 1, 2), strides=(1, 2, 2, 1)),
    decode_head=dict(
        _delete_=True,
        type='mmseg_attn.CE2PHead',
        in_channels=(256, 512, 1024, 2048),
        in_index=(0, 1, 2, 3),
        channels=512,
        decoder_channels=256,
        attention=dict(type='mmseg_attn.CrissCrossAttention'),
        recurrence=2,
        dropout_ratio=0.1,
        num_classes=20,
        norm_cfg={{_base_.norm_cfg}},
        act_cfg={{_base_.act_cfg}},
        align_corners=True,
        loss_decode={{_base_.loss_decode}},
        loss_ccl=dict(
            type='mmseg_attn.CategoryConsistentLoss', align_corners=True
        ),
    ),
    auxiliary_head=None,
)
