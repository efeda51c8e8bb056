# The hosts have no recipe for CamVid: theirs for Cityscapes, halved.
_base_ = [
    '../datasets/camvid.py',
    '../default_runtime.py',
    '../schedules/schedule_20k.py',
]
