_base_ = [
    __import__('mmseg').__path__[0]
    + '/.mim/configs/_base_/models/isanet_r50-d8.py'
]
model = dict(decode_head=dict(type='mmseg_attn.ISAHead'))
