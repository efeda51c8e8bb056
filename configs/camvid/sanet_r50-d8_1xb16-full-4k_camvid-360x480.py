_base_ = ['./fcn_r50-d8_1xb16-full-4k_camvid-360x480.py']
# Its dense prediction is the auxiliary one.
model = dict(
    decode_head=dict(
        type='mmseg_attn.SqueezeAttentionHead',
        in_channels=[256, 512, 1024, 2048],
        in_index=[0, 1, 2, 3],
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
