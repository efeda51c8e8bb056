_base_ = './caanet_r50-d8_4xb4-30k_pascal-context-59-513x513.py'
# No pre-trained weights are named here: set model.backbone.init_cfg to those
# of OpenMMLab's classification zoo (prefix 'backbone.') or your own.
model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='mmseg_attn.DilatedEfficientNet',
        arch='b7',
        output_stride=8,
        norm_cfg=dict(
            type='SyncBN', requires_grad=True, eps=1e-3, momentum=0.01
        ),
    ),
    decode_head=dict(in_channels=640),
    auxiliary_head=dict(in_channels=640),
)
