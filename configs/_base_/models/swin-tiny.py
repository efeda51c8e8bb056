# Swin-T in place of a ResNet, with the hosts' optimizer for it, for the
# configs that read this variable: bases cannot share `model`. The head takes
# the last three stages together at stride 8, the stride of the ResNets here.
swin_tiny = dict(
    model=dict(
        pretrained=None,
        backbone=dict(
            _delete_=True,
            type='SwinTransformer',
            embed_dims=96,
            depths=(2, 2, 6, 2),
            num_heads=(3, 6, 12, 24),
            window_size=7,
            drop_path_rate=0.3,
            init_cfg=dict(
                type='Pretrained',
                checkpoint='https://download.openmmlab.com/mmsegmentation/'
                'v0.5/pretrain/swin/'
                'swin_tiny_patch4_window7_224_20220317-1cdeb081.pth',
            ),
        ),
        decode_head=dict(
            in_channels=[192, 384, 768],
            in_index=[1, 2, 3],
            input_transform='resize_concat',
        ),
        auxiliary_head=dict(in_channels=384, in_index=2),
    ),
    optim_wrapper=dict(
        _delete_=True,
        type='OptimWrapper',
        optimizer=dict(
            type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01
        ),
        paramwise_cfg=dict(
            custom_keys={
                'absolute_pos_embed': dict(decay_mult=0.0),
                'relative_position_bias_table': dict(decay_mult=0.0),
                'norm': dict(decay_mult=0.0),
            }
        ),
    ),
    param_scheduler=[
        dict(
            type='LinearLR',
            start_factor=1e-6,
            by_epoch=False,
            begin=0,
            end=1500,
        ),
        dict(
            type='PolyLR',
            eta_min=0.0,
            power=1.0,
            begin=1500,
            end=80000,
            by_epoch=False,
        ),
    ],
)
