_base_ = ['./psmnet_4xb3-10e_sceneflow-256x512.py']
model = dict(
    aggregation=dict(
        attention=dict(type='mmseg_attn.EfficientAttention', zero_init=True)
    )
)
