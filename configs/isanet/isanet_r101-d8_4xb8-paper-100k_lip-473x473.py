_base_ = './isanet_r50-d8_4xb8-paper-100k_lip-473x473.py'
model = dict(
    pretrained='http://sceneparsing.csail.mit.edu/model/pretrained_resnet/'
    'resnet101-imagenet.pth',
    backbone=dict(depth=101),
)
