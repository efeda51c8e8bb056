_base_ = [
    '../datasets/pascal_context_59.py',
    '../default_runtime.py',
    '../schedules/schedule_80k.py',
]
# The hosts' for their models on this dataset.
optim_wrapper = dict(optimizer=dict(lr=0.004, weight_decay=0.0001))
