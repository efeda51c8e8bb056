_base_ = [
    '../_base_/models/ccnet_r50-d8.py',
    '../_base_/benchmarks/voc12aug.py',
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    decode_head=dict(num_classes=21),
    auxiliary_head=dict(num_classes=21),
)
