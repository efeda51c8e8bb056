_base_ = [
    '../_base_/models/ccnet_r50-d8.py',
    '../_base_/benchmarks/lip.py',
]
model = dict(
    data_preprocessor=dict(size=(473, 473)),
    decode_head=dict(num_classes=20, align_corners=True),
    auxiliary_head=dict(num_classes=20, align_corners=True),
)
