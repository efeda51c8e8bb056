# The official code's combination with atrous convolutions, of 2019.
_base_ = './isanet_r50-d8_4xb2-paper-40k_cityscapes-512x1024.py'
model = dict(
    decode_head=dict(
        isa_channels=128,
        dilations=(12, 24, 36),
        attention=dict(output_norm=False),
        dropout_ratio=0.1,
    ),
    auxiliary_head=dict(dropout_ratio=0),
)
