# Crops of 513x513 and 520x520 of pictures whose shorter side is resized to
# that first. Labels are reduced by 1 if the dataset says so.
short_side = {
    f'to_{side}': dict(
        train=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(
                type='RandomResize',
                scale=(4 * side, side),
                ratio_range=(0.5, 2.0),
                keep_ratio=True,
            ),
            # Anywhere, as in the official code of ISANet and of CAR.
            dict(type='RandomCrop', crop_size=(side, side)),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion'),
            dict(type='PackSegInputs'),
        ],
        test=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(4 * side, side), keep_ratio=True),
            # After Resize: the labels keep the size of the picture.
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
        tta=[
            dict(type='LoadImageFromFile'),
            dict(
                type='TestTimeAug',
                transforms=[
                    # Of the resized picture, as ISANet's official code has
                    # them.
                    [
                        dict(
                            type='Resize',
                            scale=(int(ratio * 4 * side), int(ratio * side)),
                            keep_ratio=True,
                        )
                        for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
                    ],
                    [
                        dict(type='RandomFlip', prob=p, direction='horizontal')
                        for p in (0.0, 1.0)
                    ],
                    [dict(type='LoadAnnotations')],
                    [dict(type='PackSegInputs')],
                ],
            ),
        ],
    )
    for side in (513, 520)
}
