_base_ = [
    '../_base_/models/caanet_r50-d8.py',
    '../_base_/datasets/pascal_context_59_513x513.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_40k.py',
]
# The authors' later recipe for this dataset (their CAR code). Its momentum of
# running means is 0.9997, in torch's words the share of the new one.
crop_size = (513, 513)
norm_cfg = dict(momentum=3e-4)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(norm_cfg=norm_cfg),
    decode_head=dict(num_classes=59, norm_cfg=norm_cfg),
    auxiliary_head=dict(num_classes=59, norm_cfg=norm_cfg),
)
# Decay of the kernels alone. Keras' l2(1e-4) is 1e-4 times the square, whose
# gradient is 2e-4 times the weight, as torch's decay has it.
max_iters = 30000
optim_wrapper = dict(
    optimizer=dict(lr=0.01, weight_decay=0.0002),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
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
