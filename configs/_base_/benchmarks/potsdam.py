_base_ = [
    '../datasets/potsdam.py',
    '../default_runtime.py',
    '../schedules/schedule_80k.py',
]
