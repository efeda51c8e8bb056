_base_ = [
    './caanet_r50-d8_4xb4-30k_pascal-context-59-513x513.py',
    '../_base_/models/efficientnet-d8.py',
]
model = dict(
    pretrained=None,
    # Both heads take what follows the last convolution, which widens the map.
    backbone=dict(
        _delete_=True,
        arch='b7',
        out_indices=(2, 3, 4, 6),
        contract_dilation=False,
        **{
            **_base_.efficientnet,
            'norm_cfg': dict(_base_.efficientnet.norm_cfg, momentum=3e-4),
        },
    ),
    decode_head=dict(in_channels=2560),
    auxiliary_head=dict(in_channels=2560),
)
