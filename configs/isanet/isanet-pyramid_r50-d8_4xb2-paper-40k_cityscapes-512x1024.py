# The official code's combination with a pyramid, of 2019.
_base_ = './isanet_r50-d8_4xb2-paper-40k_cityscapes-512x1024.py'
model = dict(
    decode_head=dict(
        pyramid=(1, 2, 3, 6),
        attention=dict(output_norm=False),
        dropout_ratio=0,
    )
)
