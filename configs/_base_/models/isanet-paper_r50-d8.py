# The network of the authors' code (https://github.com/openseg-group): the
# same backbone, stem and auxiliary head as that of CCNet's authors, but for
# the norm's ReLU and the mean, and dilation that begins after the first block.
_base_ = './ccnet-paper_r50-d8.py'
act_cfg = dict(type='ReLU')
model = dict(
    data_preprocessor=dict(mean=[102.9801, 115.9465, 122.7717]),
    backbone=dict(contract_dilation=True),
    decode_head=dict(
        _delete_=True,
        type='mmseg_attn.ISAHead',
        in_channels=2048,
        in_index=3,
        channels=512,
        isa_channels=256,
        down_factor=(8, 8),
        dropout_ratio=0.05,
        num_classes=19,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        act_cfg=act_cfg,
        align_corners=True,
        loss_decode=dict(
            type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=1.0
        ),
    ),
    auxiliary_head=dict(
        dropout_ratio=0.05, act_cfg=dict(_delete_=True, type='ReLU')
    ),
)
