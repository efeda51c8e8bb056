_base_ = ['./fcn_r18-s4_1xb8-1k_demo-pictures-128x128.py']
model = dict(decode_head=dict(type='mmseg_attn.EAHead'))
