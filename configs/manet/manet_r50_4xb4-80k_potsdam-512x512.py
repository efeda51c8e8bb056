_base_ = '../maresunet/maresunet_r34_4xb4-80k_potsdam-512x512.py'
model = dict(
    pretrained='https://download.pytorch.org/models/resnet50-0676ba61.pth',
    backbone=dict(depth=50),
    decode_head=dict(
        type='mmseg_attn.MANetHead', in_channels=[256, 512, 1024, 2048]
    ),
)
