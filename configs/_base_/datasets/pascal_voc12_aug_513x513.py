# The shorter side to 513 pixels, then crops of 513x513.
_base_ = ['./pascal_voc12_aug.py', './short_side.py']
crop_size = (513, 513)
train_pipeline = {{_base_.short_side.to_513.train}}
test_pipeline = {{_base_.short_side.to_513.test}}
tta_pipeline = {{_base_.short_side.to_513.tta}}
# Each of the two lists of pictures has a pipeline.
train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(
                type='PascalVOCDataset',
                data_root='data/VOCdevkit/VOC2012',
                data_prefix=dict(img_path='JPEGImages', seg_map_path=masks),
                ann_file=f'ImageSets/Segmentation/{split}.txt',
                pipeline=train_pipeline,
            )
            for split, masks in (
                ('train', 'SegmentationClass'),
                ('aug', 'SegmentationClassAug'),
            )
        ]
    )
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
