_base_ = ['./fcn_r50-d8_1xb16-full-4k_camvid-360x480.py']
model = dict(
    decode_head=dict(
        type='mmseg_attn.CAAHead',
        attention_channels=512,
        # An eighth of the channels, as in the paper.
        attention=dict(guided_channels=64),
    )
)
