_base_ = ['./psmnet_1xb2-400_demo-stereo-96x192.py']
model = dict(
    aggregation=dict(
        attention=dict(type='mmseg_attn.EfficientAttention', zero_init=True)
    )
)
