_base_ = [
    '../_base_/models/isanet-paper_r50-d8.py',
    '../_base_/datasets/lip.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_40k.py',
]
crop_size = (473, 473)
model = dict(
    # Of LIP alone this mean, in the official code.
    data_preprocessor=dict(
        size=crop_size, mean=[104.00698793, 116.66876762, 122.67891434]
    ),
    decode_head=dict(num_classes=20),
    auxiliary_head=dict(num_classes=20),
)
max_iters = 100000
optim_wrapper = dict(
    optimizer=dict(lr=0.007, weight_decay=0.0005),
)
param_scheduler = [
    dict(
        type='PolyLR',
        eta_min=0.0,
        power=0.9,
        begin=0,
        end=max_iters,
        by_epoch=False,
    )
]
train_cfg = dict(max_iters=max_iters)
train_dataloader = dict(batch_size=8)
tta_model = dict(
    type='mmseg_attn.MirrorTTAModel', swap_labels={{_base_.swap_labels}}
)
