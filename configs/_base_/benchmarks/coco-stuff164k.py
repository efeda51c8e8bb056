_base_ = [
    '../datasets/coco-stuff164k.py',
    '../default_runtime.py',
    '../schedules/schedule_80k.py',
]
