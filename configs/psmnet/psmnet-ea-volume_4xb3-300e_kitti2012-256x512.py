_base_ = ['./psmnet_4xb3-300e_kitti2012-256x512.py']
model = dict(
    aggregation=dict(
        attention=dict(type='mmseg_attn.EfficientAttention', zero_init=True)
    )
)
