_base_ = [
    '../datasets/coco-stuff10k.py',
    '../default_runtime.py',
    '../schedules/schedule_40k.py',
]
