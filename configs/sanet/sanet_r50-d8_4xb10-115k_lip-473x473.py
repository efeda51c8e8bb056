_base_ = [
    '../_base_/models/sanet_r50-d8.py',
    '../_base_/benchmarks/lip.py',
]
model = dict(
    data_preprocessor=dict(size=(473, 473)),
    decode_head=dict(num_classes=20, align_corners=True),
)
