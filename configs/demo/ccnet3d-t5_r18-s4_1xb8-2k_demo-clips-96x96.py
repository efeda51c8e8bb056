_base_ = [
    '../_base_/models/fcn_r18-s4.py',
    '../_base_/datasets/demo-clips.py',
    '../_base_/schedules/schedule_demo-2k.py',
    '../_base_/default_runtime.py',
]
model = dict(
    type='mmseg_attn.ClipEncoderDecoder',
    data_preprocessor=dict(type='mmseg_attn.ClipDataPreProcessor'),
    decode_head=dict(
        type='mmseg_attn.CCHead3D',
        recurrence=3,
        # As in the paper's formula; from 0 it would take long to get there.
        attention=dict(gamma_init=1.0),
    ),
)
