_base_ = ['./fcn_r18-s4_1xb16-600i_demo-scenes-96x96.py']
model = dict(decode_head=dict(type='mmseg_attn.CCHead', recurrence=2))
