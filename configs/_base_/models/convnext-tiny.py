# ConvNeXt-T of MMPreTrain in place of a ResNet, with the hosts' optimizer for
# it, for the configs that read this variable: bases cannot share `model`. The
# head takes the last three stages together at stride 8, the stride of the
# ResNets here.
convnext_tiny = dict(
    model=dict(
        pretrained=None,
        backbone=dict(
            _delete_=True,
            type='mmpretrain.ConvNeXt',
            arch='tiny',
            out_indices=(0, 1, 2, 3),
            drop_path_rate=0.4,
            layer_scale_init_value=1.0,
            gap_before_final_norm=False,
            init_cfg=dict(
                type='Pretrained',
                checkpoint='https://download.openmmlab.com/mmclassification/'
                'v0/convnext/downstream/convnext-tiny_3rdparty_32xb128-noema_'
                'in1k_20220301-795e9634.pth',
                prefix='backbone.',
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
            type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05
        ),
        paramwise_cfg=dict(
            decay_rate=0.9, decay_type='stage_wise', num_layers=6
        ),
        constructor='LearningRateDecayOptimizerConstructor',
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
