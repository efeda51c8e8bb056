_base_ = [
    '../_base_/models/ccnet_r50-d8.py',
    '../_base_/benchmarks/camvid.py',
]
model = dict(
    data_preprocessor=dict(size=(720, 720)),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11),
)
