_base_ = ['./fcn_r18-s4_1xb8-1k_demo-pictures-128x128.py']
# The one stage there is.
model = dict(
    decode_head=dict(
        _delete_=True,
        type='mmseg_attn.SqueezeAttentionHead',
        in_channels=[32],
        in_index=[0],
        channels={{_base_.model.decode_head.channels}},
        fcn_channels={{_base_.model.decode_head.channels}},
        dropout_ratio={{_base_.model.decode_head.dropout_ratio}},
        num_classes={{_base_.model.decode_head.num_classes}},
        norm_cfg={{_base_.norm_cfg}},
        align_corners={{_base_.model.decode_head.align_corners}},
        loss_decode={{_base_.model.decode_head.loss_decode}},
    )
)
