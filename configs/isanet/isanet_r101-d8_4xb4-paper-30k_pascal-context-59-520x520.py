_base_ = './isanet_r50-d8_4xb4-paper-30k_pascal-context-59-520x520.py'
model = dict(
    pretrained='http://sceneparsing.csail.mit.edu/model/pretrained_resnet/'
    'resnet101-imagenet.pth',
    backbone=dict(depth=101),
)
