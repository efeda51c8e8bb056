_base_ = './maresunet_r34_4xb4-80k_gid15-256x256.py'
model = dict(
    pretrained='https://download.pytorch.org/models/resnet18-f37072fd.pth',
    backbone=dict(depth=18),
)
