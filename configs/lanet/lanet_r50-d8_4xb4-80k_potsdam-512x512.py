_base_ = [
    '../_base_/models/lanet_r50-d8.py',
    '../_base_/benchmarks/potsdam.py',
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    decode_head=dict(num_classes=6),
    auxiliary_head=dict(num_classes=6),
)
