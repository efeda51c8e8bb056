_base_ = [
    '../_base_/models/isanet_r50-d8.py',
    '../_base_/benchmarks/cityscapes.py',
]
model = dict(
    data_preprocessor=dict(size=(512, 1024)),
)
