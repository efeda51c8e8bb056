# Trained on train and val, for the test set (release_test.zip): its pictures
# have no masks, and `test --out FOLDER` saves the predictions. The validation
# says nothing of unseen pictures.
_base_ = './ccnet_r50-d8_4xb4-paper-ccl-100k_ade20k-512x512.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(
                type='ADE20KDataset',
                data_root='data/ade/ADEChallengeData2016',
                data_prefix=dict(
                    img_path=f'images/{part}',
                    seg_map_path=f'annotations/{part}',
                ),
                pipeline=_base_.train_pipeline,
            )
            for part in ('training', 'validation')
        ],
    )
)
test_dataloader = dict(
    dataset=dict(
        data_root='data/ade/release_test',
        data_prefix=dict(_delete_=True, img_path='testing'),
    )
)
