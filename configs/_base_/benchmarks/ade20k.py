_base_ = [
    '../datasets/ade20k.py',
    '../default_runtime.py',
    '../schedules/schedule_80k.py',
]
