# Output stride 16, the default of the official code: half of the dilation.
_base_ = './caanet_r50-d8_4xb4-30k_pascal-context-59-513x513.py'
model = dict(
    backbone=dict(
        strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), multi_grid=(2, 4, 8)
    )
)
