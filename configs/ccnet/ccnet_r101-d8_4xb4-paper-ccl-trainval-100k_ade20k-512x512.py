_base_ = './ccnet_r50-d8_4xb4-paper-ccl-trainval-100k_ade20k-512x512.py'
model = dict(
    pretrained='http://sceneparsing.csail.mit.edu/model/pretrained_resnet/'
    'resnet101-imagenet.pth',
    backbone=dict(depth=101),
)
