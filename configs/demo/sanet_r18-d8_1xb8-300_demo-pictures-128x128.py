_base_ = ['./fcn_r18-d8_1xb8-300_demo-pictures-128x128.py']
# Takes all three stages.
model = dict(
    backbone=dict(out_indices=(0, 1, 2)),
    decode_head=dict(
        _delete_=True,
        type='mmseg_attn.SqueezeAttentionHead',
        in_channels=[32, 64, 128],
        in_index=[0, 1, 2],
        channels={{_base_.model.decode_head.channels}},
        fcn_channels={{_base_.model.decode_head.channels}},
        dropout_ratio={{_base_.model.decode_head.dropout_ratio}},
        num_classes={{_base_.model.decode_head.num_classes}},
        norm_cfg={{_base_.norm_cfg}},
        align_corners={{_base_.model.decode_head.align_corners}},
        loss_decode={{_base_.model.decode_head.loss_decode}},
    ),
)
