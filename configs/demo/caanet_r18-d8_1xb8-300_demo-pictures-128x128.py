_base_ = ['./fcn_r18-d8_1xb8-300_demo-pictures-128x128.py']
# The head has no `kernel_size` and `concat_input`, which FCN's has.
model = dict(
    decode_head=dict(
        _delete_=True,
        type='mmseg_attn.CAAHead',
        in_channels={{_base_.model.decode_head.in_channels}},
        in_index={{_base_.model.decode_head.in_index}},
        channels={{_base_.model.decode_head.channels}},
        # About as many operations as the FCN's head has.
        attention_channels=128,
        # An eighth of the channels, as in the paper.
        attention=dict(guided_channels=16),
        dropout_ratio={{_base_.model.decode_head.dropout_ratio}},
        num_classes={{_base_.model.decode_head.num_classes}},
        norm_cfg={{_base_.norm_cfg}},
        align_corners={{_base_.model.decode_head.align_corners}},
        loss_decode={{_base_.model.decode_head.loss_decode}},
    )
)
