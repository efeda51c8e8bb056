# The authors' recipe with non-local attention, of the width of criss-cross
# attention's keys and without a scale.
_base_ = './ccnet-psp_r50-d8_4xb2-paper-60k_cityscapes-769x769.py'
model = dict(
    decode_head=dict(
        _delete_=True,
        type='NLHead',
        reduction=8,
        use_scale=False,
        mode='embedded_gaussian',
        **_base_.head,
    )
)
