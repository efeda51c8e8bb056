# The authors' recipe with atrous spatial pyramid pooling.
_base_ = './ccnet-psp_r50-d8_4xb2-paper-60k_cityscapes-769x769.py'
model = dict(
    decode_head=dict(
        _delete_=True,
        type='ASPPHead',
        dilations=(1, 12, 24, 36),
        **_base_.head,
    )
)
