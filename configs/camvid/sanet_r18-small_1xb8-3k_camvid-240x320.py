_base_ = ['./fcn_r18-small_1xb8-3k_camvid-240x320.py']
# The three stages there are. Its dense prediction is the auxiliary one.
model = dict(
    decode_head=dict(
        type='mmseg_attn.SqueezeAttentionHead',
        in_channels=[32, 64, 128],
        in_index=[0, 1, 2],
        # The paper's weights: 1, 0.8 (beta) and 0.2 (alpha).
        loss_dense=dict(
            type='CrossEntropyLoss',
            class_weight={{_base_.class_weight}},
            loss_weight=0.8,
        ),
        loss_presence=dict(
            type='mmseg_attn.ClassPresenceLoss', loss_weight=0.2
        ),
    ),
    auxiliary_head=None,
)
