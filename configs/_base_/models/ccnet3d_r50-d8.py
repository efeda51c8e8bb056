_base_ = ['./ccnet_r50-d8.py']
model = dict(
    type='mmseg_attn.ClipEncoderDecoder',
    data_preprocessor=dict(type='mmseg_attn.ClipDataPreProcessor'),
    # How many loops the paper has is not known; 3 reach the whole clip.
    decode_head=dict(type='mmseg_attn.CCHead3D', recurrence=3),
)
