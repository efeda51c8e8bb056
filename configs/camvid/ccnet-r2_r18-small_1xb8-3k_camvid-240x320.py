_base_ = ['./fcn_r18-small_1xb8-3k_camvid-240x320.py']
model = dict(decode_head=dict(type='mmseg_attn.CCHead', recurrence=2))
