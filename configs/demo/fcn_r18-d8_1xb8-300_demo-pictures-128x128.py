_base_ = [
    '../_base_/models/fcn_r18-d8.py',
    '../_base_/datasets/demo-pictures.py',
    '../_base_/schedules/schedule_demo-300.py',
    '../_base_/default_runtime.py',
]
