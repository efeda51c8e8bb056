_base_ = [
    '../datasets/vaihingen.py',
    '../default_runtime.py',
    '../schedules/schedule_80k.py',
]
