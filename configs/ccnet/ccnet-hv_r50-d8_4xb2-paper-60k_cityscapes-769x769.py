# The authors' recipe with axial attention, along rows and then along columns.
_base_ = './ccnet_r50-d8_4xb2-paper-60k_cityscapes-769x769.py'
model = dict(
    decode_head=dict(
        type='mmseg_attn.AttentionHead',
        recurrence=1,
        attention=[
            dict(type='mmseg_attn.CrissCrossAttention', axis=1),
            dict(type='mmseg_attn.CrissCrossAttention', axis=0),
        ],
    )
)
