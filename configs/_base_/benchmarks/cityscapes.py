_base_ = [
    '../datasets/cityscapes.py',
    '../default_runtime.py',
    '../schedules/schedule_80k.py',
]
