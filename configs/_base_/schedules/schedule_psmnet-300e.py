_base_ = ['./schedule_psmnet-10e.py']
# Of PSMNet's code to go on from Scene Flow to KITTI.
param_scheduler = [
    dict(type='MultiStepLR', milestones=[200], gamma=0.1, by_epoch=True)
]
train_cfg = dict(max_epochs=300, val_interval=10)
default_hooks = dict(checkpoint=dict(interval=10))
