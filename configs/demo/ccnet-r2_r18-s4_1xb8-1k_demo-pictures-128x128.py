_base_ = ['./fcn_r18-s4_1xb8-1k_demo-pictures-128x128.py']
model = dict(
    decode_head=dict(
        type='mmseg_attn.CCHead',
        recurrence=2,
        # As in the paper's formula; from 0 it would take long to get there.
        attention=dict(gamma_init=1.0),
    )
)
