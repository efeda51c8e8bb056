_base_ = [
    '../_base_/models/fcn_r18-small.py',
    '../_base_/datasets/camvid-480x360.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_camvid-small.py',
]
# One over the root of each class's share of the training pixels, of mean 1
# over the pixels. With weights mmseg's loss counts labelled pixels alone, and
# fails with avg_non_ignore.
class_weight = [
    *(0.88, 0.75, 3.63, 0.64, 1.70, 1.15),
    *(3.32, 3.39, 1.49, 4.50, 6.66),
]
model = dict(
    data_preprocessor=dict(size={{_base_.crop_size}}),
    decode_head=dict(
        num_classes=11, loss_decode=dict(class_weight=class_weight)
    ),
    auxiliary_head=dict(
        num_classes=11, loss_decode=dict(class_weight=class_weight)
    ),
)
