_base_ = './ccnet-ce2p_r50-d16_4xb10-115k_lip-473x473.py'
model = dict(
    pretrained='http://sceneparsing.csail.mit.edu/model/pretrained_resnet/'
    'resnet101-imagenet.pth',
    backbone=dict(depth=101),
)
