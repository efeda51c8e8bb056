_base_ = [
    '../_base_/models/caanet_r50-d8.py',
    '../_base_/benchmarks/coco-stuff10k.py',
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    decode_head=dict(num_classes=171),
    auxiliary_head=dict(num_classes=171),
)
