# The authors' recipe with pyramid pooling in place of the attention: what the
# paper compares with, as the hosts have it.
_base_ = './ccnet_r50-d8_4xb2-paper-60k_cityscapes-769x769.py'
head = dict(
    in_channels=2048,
    in_index=3,
    channels=512,
    dropout_ratio=0.1,
    num_classes=19,
    norm_cfg=_base_.norm_cfg,
    act_cfg=_base_.act_cfg,
    align_corners=True,
    loss_decode=_base_.loss_decode,
)
model = dict(
    decode_head=dict(
        _delete_=True, type='PSPHead', pool_scales=(1, 2, 3, 6), **head
    )
)
