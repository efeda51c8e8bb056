# Copyright (c) mmseg_attn contributors.
"""Values of the authors' code, written down a second time."""

import copy
import re

import numpy as np
import pytest
from all_configs import ALL, ROOT, parsed
from mmcv.transforms import Compose
from mmengine.registry import init_default_scope

ISANET = [p for p in ALL if re.match('isanet[-_].*-paper-', p.name)]
SEVEN = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
CITYSCAPES = [
    *(0.8373, 0.9180, 0.8660, 1.0345, 1.0166, 0.9969, 0.9754),
    *(1.0489, 0.8786, 1.0023, 0.9539, 0.9843, 1.1116, 0.9037),
    *(1.0865, 1.0955, 1.0865, 1.1529, 1.0507),
]


def read(path):
    return copy.deepcopy(parsed(path))


def pipelines(dataset):
    parts = dataset.get('datasets', [dataset])
    return [part.pipeline for part in parts]


@pytest.mark.parametrize('path', ISANET, ids=lambda path: path.stem)
def test_isanet(path):
    """configs/*/{R_101_D_8,H_48_D_4}{,_TEST}.json and scripts of openseg."""
    cfg = read(path)
    resnet = '_hr48_' not in path.name
    data = path.stem.split('_')[-1].rpartition('-')[0]
    for pipeline in pipelines(cfg.train_dataloader.dataset):
        (crop,) = (s for s in pipeline if s.type == 'RandomCrop')
        assert crop.get('cat_max_ratio', 1) == 1  # crops anywhere

    samplers = [cfg.model.decode_head.get('sampler')]
    if resnet:
        samplers.append(cfg.model.auxiliary_head.get('sampler'))
    weighted = dict(
        type='mmseg_attn.ClassWeightPixelSampler', class_weight=CITYSCAPES
    )
    for sampler in samplers:
        assert (sampler == weighted) == (data == 'cityscapes')

    if data == 'lip':  # one scale and its mirror image
        return
    scales = SEVEN
    if resnet and data == 'voc12aug':
        scales = [0.6, 0.8, 1.0, 1.2, 1.4, 1.6]
    side = {'ade20k': 520, 'voc12aug': 513}.get(data, 520)
    steps = cfg.tta_pipeline[-1].transforms[0]
    found = [s.get('scale_factor') or s.scale[1] / side for s in steps]
    assert found == pytest.approx(scales, abs=1 / side)


@pytest.mark.parametrize('backbone', ['r50', 'r101', 'effb7'])
def test_caanet_on_context(backbone):
    """configs/*_train_base.cfg of CAR: crops anywhere."""
    name = f'caanet_{backbone}-d8_4xb4-30k_pascal-context-59-513x513.py'
    cfg = read(ROOT / 'configs/caanet' / name)
    (crop,) = (
        step
        for step in cfg.train_dataloader.dataset.pipeline
        if step.type == 'RandomCrop'
    )
    assert crop == dict(type='RandomCrop', crop_size=(513, 513))


# CCNet's paper: the toolbox that its authors used on ADE20K, its test on
# Cityscapes, and what is trained for the test servers.
SIDES = [(1000, side) for side in (300, 375, 450, 525, 600)]
SERVERS = ('ade20k', 'cityscapes')


def ccnet(depth, recipe, data):
    return read(ROOT / f'configs/ccnet/ccnet_r{depth}-d8_{recipe}_{data}.py')


@pytest.mark.parametrize('depth', [50, 101])
def test_ccnet_on_ade20k(depth):
    cfg = ccnet(depth, '4xb4-paper-ccl-100k', 'ade20k-512x512')
    network = ccnet(depth, '4xb2-paper-ccl-60k', 'cityscapes-769x769').model
    for head in (network.decode_head, network.auxiliary_head):
        head.num_classes = 150
    network.data_preprocessor.size = (512, 512)
    network.test_cfg = dict(mode='whole')
    assert cfg.model == network
    assert network.decode_head.loss_ccl.type.endswith('CategoryConsistentLoss')
    assert f'resnet{depth}-imagenet' in network.pretrained
    assert cfg.tta_pipeline[-1].transforms[0] == [
        dict(type='Resize', scale=side, keep_ratio=True) for side in SIDES
    ]

    init_default_scope('mmseg')
    load, annotate, resize, crop, *_ = cfg.train_dataloader.dataset.pipeline
    assert (load.type, annotate.reduce_zero_label) == (
        'LoadImageFromFile',
        True,
    )
    np.random.seed(0)
    sizes = set()
    for _ in range(40):
        picture = dict(img=np.zeros((100, 120, 3), np.uint8))
        sizes.add(Compose([resize])(picture)['img'].shape[:2])
    assert sizes == {(s, s * 6 // 5) for _, s in SIDES}
    assert crop == dict(type='RandomCrop', crop_size=(512, 512))


@pytest.mark.parametrize('depth', [50, 101])
@pytest.mark.parametrize('data', SERVERS)
def test_ccnet_for_the_test_servers(data, depth):
    recipe, size = dict(
        ade20k=('4xb4-paper-ccl{}-100k', 'ade20k-512x512'),
        cityscapes=('4xb2-paper-ccl{}-60k', 'cityscapes-769x769'),
    )[data]
    both = ccnet(depth, recipe.format('-trainval'), size)
    alone = ccnet(depth, recipe.format(''), size)
    parts = both.train_dataloader.dataset.datasets
    assert parts[0] == alone.train_dataloader.dataset
    for key in ('train_dataloader', 'test_dataloader'):
        both.pop(key)
        alone.pop(key)
    assert both.to_dict() == alone.to_dict()
    if data == 'cityscapes':
        assert both.tta_pipeline[-1].transforms[0] == [
            dict(type='Resize', scale_factor=ratio, keep_ratio=True)
            for ratio in (0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
        ]


@pytest.mark.parametrize('depth', [50, 101])
@pytest.mark.parametrize(
    'module, made',
    [
        ('psp', dict(type='PSPHead', pool_scales=(1, 2, 3, 6))),
        ('aspp', dict(type='ASPPHead', dilations=(1, 12, 24, 36))),
        (
            'nl',
            dict(
                type='NLHead',
                reduction=8,
                use_scale=False,
                mode='embedded_gaussian',
            ),
        ),
        (
            'gcn',
            dict(
                type='mmseg_attn.AttentionHead',
                recurrence=1,
                attention=dict(
                    type='mmseg_attn.GlobalConvolution', kernel_size=15
                ),
            ),
        ),
        (
            'hv',  # rows, then columns
            dict(
                type='mmseg_attn.AttentionHead',
                recurrence=1,
                attention=[
                    dict(type='mmseg_attn.CrissCrossAttention', axis=axis)
                    for axis in (1, 0)
                ],
            ),
        ),
    ],
)
def test_what_ccnet_is_compared_with(module, made, depth):
    """The recipe of CCNet's code; the head alone is another."""
    name = f'ccnet-{module}_r{depth}-d8_4xb2-paper-60k_cityscapes-769x769.py'
    theirs = read(ROOT / 'configs/ccnet' / name)
    ours = ccnet(depth, '4xb2-paper-60k', 'cityscapes-769x769')
    head = ours.model.decode_head
    head.pop('recurrence')
    head.pop('type')
    assert theirs.model.decode_head == {**head, **made}
    theirs.model.pop('decode_head')
    ours.model.pop('decode_head')
    theirs.pop('head', None)
    assert theirs.to_dict() == ours.to_dict()


@pytest.mark.parametrize('depth', [50, 101])
@pytest.mark.parametrize(
    'kind, given, dropout',
    [
        ('pyramid', dict(isa_channels=256, pyramid=(1, 2, 3, 6)), (0, 0.05)),
        ('asp', dict(isa_channels=128, dilations=(12, 24, 36)), (0.1, 0)),
    ],
)
def test_combinations_of_isanet(kind, given, dropout, depth):
    """pyramid_isanet and asp_isanet: the heads alone are others."""
    recipe = f'_r{depth}-d8_4xb2-paper-40k_cityscapes-512x1024.py'
    plain, combined = (
        read(ROOT / 'configs/isanet' / f'{model}{recipe}')
        for model in ('isanet', f'isanet-{kind}')
    )
    plain.model.decode_head.update(
        **given, attention=dict(output_norm=False), dropout_ratio=dropout[0]
    )
    plain.model.auxiliary_head.dropout_ratio = dropout[1]
    assert combined.to_dict() == plain.to_dict()
    assert plain.model.decode_head.down_factor == (8, 8)
    assert plain.model.decode_head.channels == 512
