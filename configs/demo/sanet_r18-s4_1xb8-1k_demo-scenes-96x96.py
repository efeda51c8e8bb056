_base_ = ['./fcn_r18-s4_1xb8-1k_demo-scenes-96x96.py']
# The one stage there is. The 3x3 convolutions of the pooled map are this
# method's attention, so they stay.
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
        # As of the mask, with the paper's weight.
        loss_dense=dict(
            type='CrossEntropyLoss',
            loss_weight=0.8,
            class_weight=[0.2] + 6 * [1.0],
        ),
    )
)
