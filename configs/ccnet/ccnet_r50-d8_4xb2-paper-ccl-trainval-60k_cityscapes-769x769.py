# Trained on train and val, for the test set, whose masks are not public:
# `test --tta --out FOLDER` saves the predictions. The validation says nothing
# of unseen pictures.
_base_ = './ccnet_r50-d8_4xb2-paper-ccl-60k_cityscapes-769x769.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(
                type='CityscapesDataset',
                data_root='data/cityscapes/',
                data_prefix=dict(
                    img_path=f'leftImg8bit/{part}',
                    seg_map_path=f'gtFine/{part}',
                ),
                pipeline=_base_.train_pipeline,
            )
            for part in ('train', 'val')
        ],
    )
)
test_dataloader = dict(
    dataset=dict(data_prefix=dict(_delete_=True, img_path='leftImg8bit/test'))
)
