_base_ = './caanet_r50-d16_4xb4-30k_pascal-context-59-513x513.py'
model = dict(pretrained='open-mmlab://resnet101_v1c', backbone=dict(depth=101))
