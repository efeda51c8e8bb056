# The defaults of CSAIL's toolbox, in a changed copy of which CCNet's authors
# trained on ADE20K: batch 16, 20 epochs of 5000. CCNet's own are not known.
_base_ = ['./schedule_ccnet-60k.py']
optim_wrapper = dict(optimizer=dict(lr=0.02, weight_decay=1e-4))
param_scheduler = [
    dict(
        type='PolyLR',
        eta_min=0.0,
        power=0.9,
        begin=0,
        end=100000,
        by_epoch=False,
    )
]
train_cfg = dict(max_iters=100000, val_interval=10000)
default_hooks = dict(checkpoint=dict(interval=10000))
