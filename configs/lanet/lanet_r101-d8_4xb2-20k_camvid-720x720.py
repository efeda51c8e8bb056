_base_ = './lanet_r50-d8_4xb2-20k_camvid-720x720.py'
model = dict(pretrained='open-mmlab://resnet101_v1c', backbone=dict(depth=101))
