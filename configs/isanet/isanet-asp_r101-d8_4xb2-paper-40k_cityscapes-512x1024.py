_base_ = './isanet-asp_r50-d8_4xb2-paper-40k_cityscapes-512x1024.py'
model = dict(
    pretrained='http://sceneparsing.csail.mit.edu/model/pretrained_resnet/'
    'resnet101-imagenet.pth',
    backbone=dict(depth=101),
)
