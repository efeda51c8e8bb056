_base_ = ['./fcn_r18-s4_1xb8-1k_demo-scenes-96x96.py']
model = dict(decode_head=dict(type='mmseg_attn.EAHead'))
