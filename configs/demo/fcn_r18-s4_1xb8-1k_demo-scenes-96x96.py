_base_ = [
    '../_base_/models/fcn_r18-s4.py',
    '../_base_/datasets/demo-scenes.py',
    '../_base_/schedules/schedule_demo-1k.py',
    '../_base_/default_runtime.py',
]
