_base_ = './ccnet-gcn_r50-d8_4xb2-paper-60k_cityscapes-769x769.py'
model = dict(
    pretrained='http://sceneparsing.csail.mit.edu/model/pretrained_resnet/'
    'resnet101-imagenet.pth',
    backbone=dict(depth=101),
)
