# The authors' recipe with GCN's large kernels in the attention's place.
_base_ = './ccnet_r50-d8_4xb2-paper-60k_cityscapes-769x769.py'
model = dict(
    decode_head=dict(
        type='mmseg_attn.AttentionHead',
        recurrence=1,
        attention=dict(type='mmseg_attn.GlobalConvolution', kernel_size=15),
    )
)
