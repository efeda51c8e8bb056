_base_ = [
    '../_base_/models/ccnet_r50-d8.py',
    '../_base_/benchmarks/ade20k.py',
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150),
)
