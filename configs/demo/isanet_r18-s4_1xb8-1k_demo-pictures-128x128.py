_base_ = ['./fcn_r18-s4_1xb8-1k_demo-pictures-128x128.py']
# The head has no `kernel_size` and `concat_input`, which FCN's has.
model = dict(
    decode_head=dict(
        _delete_=True,
        type='mmseg_attn.ISAHead',
        in_channels={{_base_.model.decode_head.in_channels}},
        in_index={{_base_.model.decode_head.in_index}},
        channels={{_base_.model.decode_head.channels}},
        isa_channels=32,  # half of the channels, as in the paper
        down_factor=(4, 4),  # near the fourth root of the map's cells
        dropout_ratio={{_base_.model.decode_head.dropout_ratio}},
        num_classes={{_base_.model.decode_head.num_classes}},
        norm_cfg={{_base_.norm_cfg}},
        align_corners={{_base_.model.decode_head.align_corners}},
        loss_decode={{_base_.model.decode_head.loss_decode}},
    )
)
