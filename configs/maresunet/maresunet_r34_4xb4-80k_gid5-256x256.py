_base_ = [
    '../_base_/models/maresunet_r34.py',
    '../_base_/datasets/gid5.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_80k.py',
]
crop_size = (256, 256)
model = dict(
    data_preprocessor=dict(size=crop_size),
    decode_head=dict(num_classes=5),
)
# Adam and its rate are those of the same group's other code; the rest is the
# host's recipe for this data.
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='Adam', lr=3e-4),
)
# The host's would end at 1e-4, a third of this rate.
param_scheduler = [
    dict(
        type='PolyLR',
        eta_min=0.0,
        power=0.9,
        begin=0,
        end=80000,
        by_epoch=False,
    )
]
