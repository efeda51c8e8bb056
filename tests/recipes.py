# Copyright (c) mmseg_attn contributors.
"""The recipes of all configs, written down a second time.

From the papers, the authors' code and what each README names as chosen here;
none is read from a config. A row holds for the configs whose name has its
pattern, and a later row goes over an earlier one. What the names mean:
test_recipe_table.py.
"""

RGB = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], rgb=True
)
# Of the authors' code of CCNet and of openseg: BGR less a mean.
BGR = dict(
    mean=[104.00698793, 116.66876762, 122.67891434],
    std=[1.0, 1.0, 1.0],
    rgb=False,
)
OPENSEG = {**BGR, 'mean': [102.9801, 115.9465, 122.7717]}
LEFT_AND_RIGHT = [(14, 15), (16, 17), (18, 19)]


def sgd(lr: float, decay: float) -> dict:
    return dict(type='SGD', lr=lr, momentum=0.9, weight_decay=decay)


def adamw(lr: float, decay: float, **betas) -> dict:
    return dict(type='AdamW', lr=lr, weight_decay=decay, **betas)


def poly(eta_min: float, power: float = 0.9) -> dict:
    return dict(type='PolyLR', eta_min=eta_min, power=power)


def drops(*epochs: int) -> dict:
    return dict(type='MultiStepLR', milestones=[*epochs], gamma=0.1)


def norm(eps: float = 1e-5, momentum: float = 0.1) -> tuple:
    return 'SyncBN', eps, momentum


def auxiliary(
    index: int = 2,
    weight: float = 0.4,
    dropout: float = 0.1,
    norm: tuple = norm(),
    channels: int = 256,
    ohem: tuple | None = None,
) -> dict:
    """Which stage it is on, its loss, and what it is made of."""
    return dict(
        in_index=index,
        weight=weight,
        dropout=dropout,
        norm=norm,
        channels=channels,
        ohem=ohem,
    )


def parts(root: str, pictures: str, labels: str, *names: str) -> dict:
    """Train, val and test in folders of their names."""
    found = [
        (root, f'{pictures}/{name}', f'{labels}/{name}') for name in names
    ]
    return dict(zip(('train', 'val', 'test'), found, strict=True))


def voc(year: int, labels: str, folder: str, part: str) -> tuple:
    root = f'data/VOCdevkit/VOC{year}'
    return root, 'JPEGImages', labels, f'ImageSets/{folder}/{part}.txt'


def context(part: str) -> tuple:
    labels = 'SegmentationClassContext'
    return voc(2010, labels, 'SegmentationContext', part)


def voc12(part: str) -> tuple:
    labels = 'SegmentationClass' + 'Aug' * (part == 'aug')
    return voc(2012, labels, 'Segmentation', part)


def kitti(year: int, left: str, right: str, truth: str, last: int) -> dict:
    root = f'data/kitti{year}/training'
    first, rest = ((root, left, right, truth, n) for n in (160, -last))
    return dict(train=first, val=rest, test=rest)


# The hosts' recipe: MMSegmentation's documents and configs. Ours where none
# is named are on it.
HOST = dict(
    optimizer=sgd(0.01, 5e-4),
    parameters=None,
    clip=None,
    warmup=None,
    decay=poly(1e-4),
    drops_last=False,
    **RGB,
    scales=(0.5, 2.0),
    tested=None,
    flip=0.5,
    swap=None,
    zero_is_ignored=False,
    frames=None,
    frame_step=None,
)
NETWORK = dict(
    losses=dict(decode=1.0),
    auxiliary=auxiliary(),
    dropout=0.1,
    norm=norm(),
    body_norm=norm(),
    ohem=None,
    recurrence=None,
    align_corners=False,
    dilations=(1, 1, 2, 4),
    contracted=True,  # the first block of a stage has the half
    grid=None,
    stem=64,
    windows=None,
)
SEGMENTORS = '^(?!mask-rcnn|faster-rcnn|psmnet)'
HOSTS = [
    ('', HOST),
    (SEGMENTORS, NETWORK),
    ('-20k_', dict(length=20000)),
    ('-40k_', dict(length=40000)),
    ('-80k_', dict(length=80000)),
    ('-160k_', dict(length=160000)),
]
DATA = [
    (
        '_cityscapes-',
        dict(
            train=('data/cityscapes', 'leftImg8bit/train', 'gtFine/train'),
            val=('data/cityscapes', 'leftImg8bit/val', 'gtFine/val'),
            test=('data/cityscapes', 'leftImg8bit/val', 'gtFine/val'),
            batch=2,
            tested=(2048, 1024),
        ),
    ),
    ('_cityscapes-512x1024', dict(crop=(512, 1024))),
    # Windows that overlap by a third.
    (
        '_cityscapes-769x769',
        dict(
            crop=(769, 769),
            tested=(2049, 1025),
            align_corners=True,
            windows=((769, 769), (513, 513)),
        ),
    ),
    (
        '_ade20k-',
        dict(
            **parts(
                'data/ade/ADEChallengeData2016',
                'images',
                'annotations',
                *('training', 'validation', 'validation'),
            ),
            batch=4,
            crop=(512, 512),
            tested=(2048, 512),
            zero_is_ignored=True,
        ),
    ),
    (
        '_voc12aug-',
        dict(
            train=[voc12('train'), voc12('aug')],
            val=voc12('val'),
            test=voc12('val'),
            batch=4,
            crop=(512, 512),
            tested=(2048, 512),
        ),
    ),
    (
        '_pascal-context-',
        dict(
            train=context('train'),
            val=context('val'),
            test=context('val'),
            batch=4,
            crop=(480, 480),
            tested=(520, 520),
            windows=((480, 480), (320, 320)),
            optimizer=sgd(0.004, 1e-4),
        ),
    ),
    ('_pascal-context-59-', dict(zero_is_ignored=True)),
    (
        '_coco-stuff10k-',
        dict(
            **parts(
                'data/coco_stuff10k',
                'images',
                'annotations',
                *('train2014', 'test2014', 'test2014'),
            ),
            batch=4,
            crop=(512, 512),
            tested=(2048, 512),
            zero_is_ignored=True,
        ),
    ),
    (
        '_coco-stuff164k-',
        dict(
            **parts(
                'data/coco_stuff164k',
                'images',
                'annotations',
                *('train2017', 'val2017', 'val2017'),
            ),
            batch=4,
            crop=(512, 512),
            tested=(2048, 512),
        ),
    ),
    # The schedule of CE2P's code: 40 pictures at a time, to 0.
    (
        '_lip-',
        dict(
            train=('data/LIP', 'train_images', 'train_segmentations'),
            val=('data/LIP', 'val_images', 'val_segmentations'),
            test=('data/LIP', 'val_images', 'val_segmentations'),
            batch=10,
            crop=(473, 473),
            scales=[tenths / 10 for tenths in range(5, 17)],
            swap=LEFT_AND_RIGHT,
            align_corners=True,
            optimizer=sgd(0.007, 5e-4),
            decay=poly(0.0),
            length=115000,
        ),
    ),
    (
        '_camvid-',
        dict(
            **parts(
                'data/camvid', 'images', 'annotations', 'train', 'val', 'test'
            ),
            batch=2,
            crop=(720, 720),
            tested=(960, 720),
        ),
    ),
    (
        '_(vaihingen|potsdam)-',
        dict(
            batch=4,
            crop=(512, 512),
            tested=(512, 512),
            zero_is_ignored=True,
        ),
    ),
    *(
        (
            f'_{town}-',
            parts(f'data/{town}', 'img_dir', 'ann_dir', 'train', 'val', 'val'),
        )
        for town in ('vaihingen', 'potsdam')
    ),
    *(
        (
            f'_{gid}-',
            dict(
                **parts(
                    f'data/{gid}',
                    *('images', 'annotations'),
                    *('train', 'val', 'test'),
                ),
                batch=4,
                crop=(256, 256),
            ),
        )
        for gid in ('gid15', 'gid5')
    ),
    # Patches are taken whole; their deviation is small beside the crop's.
    (
        '-rcnn_.*_coco',
        dict(
            train=(
                'data/coco',
                'train2017',
                'annotations/instances_train2017.json',
            ),
            val=('data/coco', 'val2017', 'annotations/instances_val2017.json'),
            test=(
                'data/coco',
                'val2017',
                'annotations/instances_val2017.json',
            ),
            batch=2,
            crop=None,
            scales=None,
            tested=(1333, 800),
        ),
    ),
]
METHODS = [
    ('^ccnet', dict(recurrence=2)),
    ('^(eanet|lanet)_', dict(recurrence=1)),
    (
        '^sanet_',  # alpha is the presence's, beta the dense prediction's
        dict(losses=dict(decode=1.0, dense=0.8, presence=0.2), auxiliary=None),
    ),
    # Keras' norms of the head; the auxiliary head is on the last stage.
    (
        '^caanet_',
        dict(
            norm=norm(1e-3),
            auxiliary=auxiliary(3, norm=norm(1e-3)),
            align_corners=True,
        ),
    ),
    # The three blocks of the last stage have 1, 2 and 4 times its dilation.
    ('^caanet_r', dict(grid=(4, 8, 16))),
    ('^caanet_r.*-d16_', dict(grid=(2, 4, 8))),
    ('_r(50|101)-d16_', dict(dilations=(1, 1, 1, 2))),
    (
        '_effb',
        dict(dilations=None, contracted=False, body_norm=norm(1e-3, 0.01)),
    ),
    # What Swin's and ConvNeXt's authors train segmentors with.
    (
        '_(swin|convnext)-tiny_',
        dict(
            decay=poly(0.0, 1.0),
            warmup=(1e-6, 1500),
            dilations=None,
            contracted=False,
            body_norm=None,
        ),
    ),
    ('^caanet_.*-tiny_', dict(auxiliary=auxiliary(norm=norm(1e-3)))),
    (
        '_swin-tiny_',
        dict(
            optimizer=adamw(6e-5, 0.01, betas=(0.9, 0.999)),
            parameters=dict(
                custom_keys=dict(
                    absolute_pos_embed=dict(decay_mult=0.0),
                    relative_position_bias_table=dict(decay_mult=0.0),
                    norm=dict(decay_mult=0.0),
                )
            ),
        ),
    ),
    (
        '_convnext-tiny_',
        dict(
            optimizer=adamw(1e-4, 0.05, betas=(0.9, 0.999)),
            parameters=dict(
                decay_rate=0.9, decay_type='stage_wise', num_layers=6
            ),
        ),
    ),
]
PAPERS = [
    # CCNet's code. Weight decay and scales are the paper's.
    (
        '^ccnet.*-paper-',
        dict(
            optimizer=sgd(0.01, 1e-4),
            decay=poly(0.0),
            **BGR,
            scales=(0.75, 2.0),
            auxiliary=auxiliary(channels=512),
            align_corners=True,
            contracted=False,
            stem=128,
        ),
    ),
    ('^ccnet.*-60k_cityscapes', dict(length=60000, tested=(2048, 1024))),
    ('^ccnet-(psp|aspp|nl)_', dict(recurrence=None)),
    ('^ccnet-(gcn|hv)_', dict(recurrence=1)),
    ('-paper-ohem-.*_cityscapes', dict(ohem=(0.7, 100000))),
    ('^ccnet.*-ccl-', dict(losses=dict(decode=1.0, ccl=1.0))),
    # CSAIL's toolbox, a changed copy of which the authors used.
    (
        '^ccnet.*-100k_ade20k',
        dict(
            optimizer=sgd(0.02, 1e-4),
            scales=[300, 375, 450, 525, 600],
            length=100000,
        ),
    ),
    (
        '-trainval-.*_cityscapes',
        dict(
            train=[
                ('data/cityscapes', f'leftImg8bit/{p}', f'gtFine/{p}')
                for p in ('train', 'val')
            ],
            test=('data/cityscapes', 'leftImg8bit/test'),
        ),
    ),
    (
        '-trainval-.*_ade20k',
        dict(
            train=[
                (
                    'data/ade/ADEChallengeData2016',
                    f'images/{p}',
                    f'annotations/{p}',
                )
                for p in ('training', 'validation')
            ],
            test=('data/ade/release_test', 'testing'),
        ),
    ),
    (
        '^ccnet-ce2p_',
        dict(
            **BGR,
            losses=dict(decode=1.0, ccl=1.0),
            auxiliary=None,
            contracted=False,
            stem=128,
        ),
    ),
    # How many loops, and how its clips are taken, CCNet's paper leaves open.
    ('^ccnet3d-', dict(recurrence=3)),
    ('^ccnet3d-.*_camvid', dict(frame_step=30)),
    ('^ccnet3d-t1_', dict(frames=1)),
    ('^ccnet3d-t5_', dict(frames=5)),
    # CAR, by the author of CAA. Keras' decay of 1e-4 is torch's 2e-4, of
    # kernels alone, and its momentum of 0.9997 is torch's 0.0003.
    (
        '^caanet.*-30k_pascal-context',
        dict(
            optimizer=sgd(0.01, 2e-4),
            parameters=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
            decay=poly(0.0),
            length=30000,
            crop=(513, 513),
            tested=(2052, 513),
            windows=None,
            norm=norm(1e-3, 3e-4),
            body_norm=norm(1e-5, 3e-4),
            auxiliary=auxiliary(3, norm=norm(1e-3, 3e-4)),
        ),
    ),
    ('^caanet_effb7.*-30k_', dict(body_norm=norm(1e-3, 3e-4))),
    # ISANet: openseg's configs, scripts and README.
    (
        '^isanet.*-paper-',
        dict(
            **OPENSEG,
            decay=poly(0.0),
            dropout=0.05,
            auxiliary=auxiliary(dropout=0.05, channels=512),
            align_corners=True,
            stem=128,
            windows=None,
        ),
    ),
    ('^isanet_hr48.*-paper-', dict(**RGB | dict(rgb=False), auxiliary=None)),
    (
        '^isanet_hr48_',
        dict(dilations=None, contracted=False, stem=64),
    ),
    (
        '^isanet.*-paper-.*_cityscapes',
        dict(optimizer=sgd(0.01, 5e-4)),
    ),
    ('^isanet.*-paper-40k_', dict(length=40000)),
    ('^isanet-pyramid_', dict(dropout=0)),
    (
        '^isanet-asp_',
        dict(dropout=0.1, auxiliary=auxiliary(dropout=0, channels=512)),
    ),
    ('^isanet_hr48.*-80k_', dict(length=80000)),
    (
        '^isanet.*-150k_ade20k',
        dict(
            optimizer=sgd(0.02, 1e-4),
            length=150000,
            crop=(520, 520),
            tested=(2080, 520),
        ),
    ),
    (
        '^isanet.*-100k_lip',
        dict(optimizer=sgd(0.007, 5e-4), length=100000, batch=8),
    ),
    ('^isanet_r.*-100k_lip', dict(mean=BGR['mean'])),
    (
        '^isanet.*-paper-.*_(pascal|voc|coco)',
        dict(
            optimizer=sgd(0.001, 1e-4),
            parameters=dict(custom_keys=dict(head=dict(lr_mult=10.0))),
            length=60000,
            crop=(520, 520),
            tested=(2080, 520),
        ),
    ),
    ('^isanet_r.*-30k_pascal', dict(length=30000)),
    ('^isanet.*-60k_voc', dict(crop=(513, 513), tested=(2052, 513))),
    ('^isanet_hr48.*-ohem-', dict(ohem=(0.9, 100000))),
    # SANet's paper, as a review gives it: 80 epochs of 4998 pictures, 50 of
    # 10,582, 16 at a time.
    (
        '^sanet.*-25k_pascal',
        dict(
            optimizer=sgd(0.001, 1e-4),
            decay=poly(0.0),
            length=25000,
            windows=None,
        ),
    ),
    (
        '^sanet.*-33k_voc',
        dict(optimizer=sgd(0.0001, 1e-4), decay=poly(0.0), length=33000),
    ),
    # Another code of MAResU-Net's and MANet's authors.
    (
        '^(maresunet|manet)_',
        dict(
            optimizer=dict(type='Adam', lr=3e-4),
            decay=poly(0.0),
            auxiliary=None,
            dilations=None,
            contracted=False,
        ),
    ),
    # MMDetection's documents: 16 pictures at a time on eight GPUs.
    (
        '-rcnn_.*_coco',
        dict(optimizer=sgd(0.02, 1e-4), warmup=(0.001, 500)),
    ),
    ('_1x_coco', dict(decay=drops(8, 11), length=12)),
    ('_2x_coco', dict(decay=drops(16, 22), length=24)),
    # PSMNet's code: 12 pairs at a time; on KITTI the last 100 epochs slower.
    (
        '^psmnet',
        dict(
            optimizer=dict(type='Adam', lr=1e-3, betas=(0.9, 0.999)),
            decay=None,
            batch=3,
            crop=(256, 512),
            scales=None,
            flip=None,
            losses=(0.5, 0.7, 1.0),
            validated=8,
        ),
    ),
    (
        '_sceneflow-',
        dict(
            train=('data/sceneflow', 'train'),
            val=('data/sceneflow', 'test'),
            test=('data/sceneflow', 'test'),
            length=10,
        ),
    ),
    # Pictures of several sizes are tested one by one.
    ('_kitti', dict(decay=drops(200), length=300, validated=1)),
    ('_kitti2015-', kitti(2015, 'image_2', 'image_3', 'disp_occ_0', 40)),
    ('_kitti2012-', kitti(2012, 'colored_0', 'colored_1', 'disp_occ', 34)),
]
# Ours, as configs/camvid/README.md says.
CAMVID = [
    (
        '_r18-small_|-full-',
        dict(
            **HOST,
            **NETWORK,
            **parts('data/camvid', 'images', 'masks', 'train', 'val', 'test'),
        )
        | dict(
            tested=(480, 360),
            optimizer=adamw(5e-3, 0.05),
            clip=dict(max_norm=5.0),
            decay=poly(0.0),
        ),
    ),
    (
        '_r18-small_',
        dict(
            auxiliary=auxiliary(index=1, channels=32),
            dilations=(1, 1, 2),
            contracted=False,
            stem=32,
            warmup=(0.01, 100),
            length=3000,
            batch=8,
            scales=(0.5, 1.5),
            crop=(240, 320),
        ),
    ),
    (
        '-full-',
        dict(
            optimizer=adamw(1e-3, 0.05),
            warmup=(0.01, 200),
            length=4000,
            batch=16,
            crop=(360, 480),
        ),
    ),
    ('^ccnet-r1_', dict(recurrence=1)),
    ('^ccnet-(ccl-)?r2_', dict(recurrence=2)),
    ('^ccnet-ccl-r2_', dict(losses=dict(decode=1.0, ccl=1.0))),
    (
        '^sanet_.*(-small|-full)',
        dict(losses=dict(decode=1.0, dense=0.8, presence=0.2), auxiliary=None),
    ),
]
# Ours, as the READMEs of the demos say.
TWO_PARTS = dict(train='train', val='val', test='val')
CLIPS = ('images', 'masks', 'frames')
DEMO = [
    (
        '_demo-',
        dict(
            decay=dict(type='CosineAnnealingLR', eta_min_ratio=0.01),
            warmup=(0.05, 20),
            length=1000,
            crop=None,
            scales=None,
        ),
    ),
    (
        '_1xb8-.*_demo-',
        dict(
            optimizer=adamw(3e-3, 0.01),
            batch=8,
            losses=dict(decode=1.0),
            auxiliary=None,
            norm=norm(),
            dropout=0,
            dilations=(1,),
            contracted=False,
            grid=None,
            stem=32,
            align_corners=False,
        ),
    ),
    ('^ccnet-r1_', dict(recurrence=1)),
    ('^(eanet|lanet)_.*_demo-', dict(recurrence=None)),  # once, unsaid
    (
        '_demo-scenes-',
        parts('data/scenes', 'images', 'masks', 'train', 'val', 'val'),
    ),
    # Pictures of things that may lie anywhere in them.
    (
        '_demo-pictures-',
        dict(
            **parts('data/pictures', 'images', 'masks', 'train', 'val', 'val'),
            crop=(128, 128),
            tested=(160, 160),
            scales=(0.7, 1.4),
            dropout=0.1,
        ),
    ),
    ('^sanet_.*_demo-scenes-', dict(losses=dict(decode=1.0, dense=0.8))),
    (
        '_demo-clips-',
        dict(
            train=(
                'data/clips',
                'images/train',
                'masks/train',
                'frames/train',
            ),
            val=('data/clips', 'images/val', 'masks/val', 'frames/val'),
            test=('data/clips', 'images/val', 'masks/val', 'frames/val'),
            length=2000,
        ),
    ),
    (
        '_demo-instances-',
        dict(
            train=('data/scenes', 'images/train', 'annotations/train.json'),
            val=('data/scenes', 'images/val', 'annotations/val.json'),
            test=('data/scenes', 'images/val', 'annotations/val.json'),
            optimizer=adamw(1e-3, 0.01),
            tested=(192, 192),
            clip=dict(max_norm=10),
            batch=4,
        ),
    ),
    (
        '^psmnet.*_demo-',
        dict(optimizer=adamw(1e-3, 0.01), batch=2),
    ),
    (
        '_demo-stereo-',
        dict(
            train=('data/stereo/train',),
            val=('data/stereo/val',),
            test=('data/stereo/val',),
            length=400,
            validated=4,
        ),
    ),
    (
        '_demo-motorcycle-',
        dict(
            train=('data/motorcycle',),
            val=('data/motorcycle',),
            test=('data/motorcycle',),
            length=500,
            crop=(128, 256),
            validated=1,
        ),
    ),
]
ROWS = HOSTS + DATA + METHODS + PAPERS + CAMVID + DEMO
