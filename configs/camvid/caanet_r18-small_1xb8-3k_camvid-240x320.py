_base_ = ['./fcn_r18-small_1xb8-3k_camvid-240x320.py']
model = dict(
    decode_head=dict(
        type='mmseg_attn.CAAHead',
        attention_channels=64,
        # An eighth of the channels, as in the paper.
        attention=dict(guided_channels=8),
    )
)
