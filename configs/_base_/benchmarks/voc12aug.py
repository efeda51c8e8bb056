_base_ = [
    '../datasets/pascal_voc12_aug.py',
    '../default_runtime.py',
    '../schedules/schedule_40k.py',
]
