_base_ = [
    __import__('mmseg').__path__[0]
    + '/.mim/configs/_base_/datasets/potsdam.py'
]
# The figures that papers on these data report, over all six classes.
val_evaluator = dict(_delete_=True, type='mmseg_attn.LandCoverMetric')
test_evaluator = val_evaluator
