# The schedule of CE2P's first code on LIP, batch 40. CCNet's own is unknown.
_base_ = ['./schedule_ccnet-60k.py']
optim_wrapper = dict(optimizer=dict(lr=7e-3, weight_decay=5e-4))
param_scheduler = [
    dict(
        type='PolyLR',
        eta_min=0.0,
        power=0.9,
        begin=0,
        end=115000,
        by_epoch=False,
    )
]
train_cfg = dict(max_iters=115000, val_interval=11500)
default_hooks = dict(checkpoint=dict(interval=11500))
