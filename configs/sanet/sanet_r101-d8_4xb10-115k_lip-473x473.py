_base_ = './sanet_r50-d8_4xb10-115k_lip-473x473.py'
model = dict(pretrained='open-mmlab://resnet101_v1c', backbone=dict(depth=101))
