_base_ = ['./fcn_r18-d8_1xb8-300_demo-pictures-128x128.py']
model = dict(decode_head=dict(type='mmseg_attn.EAHead'))
