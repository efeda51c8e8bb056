# Copyright (c) mmseg_attn contributors.
"""Configs of stereo networks: what their names say, and one step."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS as BUILDERS
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.utils.data import DataLoader

from mmseg_attn.models import BasicAggregation, StackedHourglass

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(ROOT.glob('configs/*/psmnet*.py'))
NAME = re.compile(
    r'psmnet(-basic|-ea-features|-ea-volume)?_(\d)xb(\d)-(\d+)([ek]?)_'
    r'(sceneflow|kitti2012|kitti2015|demo-stereo|demo-motorcycle)-'
    r'(\d+)x(\d+)'
)
DATASETS = {
    'sceneflow': 'mmseg_attn.SceneFlowDataset',
    'kitti2012': 'mmseg_attn.StereoFolder',
    'kitti2015': 'mmseg_attn.StereoFolder',
    'demo-stereo': 'mmseg_attn.StereoFolder',
    'demo-motorcycle': 'mmseg_attn.StereoFolder',
}


def test_there_are_configs():
    names = {path.stem for path in CONFIGS}
    sceneflow = {n for n in names if 'sceneflow' in n}
    assert len(sceneflow) == 4 and len(names) == len(CONFIGS) == 13


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_name_says_what_is_inside(path):
    cfg = Config.fromfile(path)
    variant, gpus, batch, length, unit, data, height, width = NAME.fullmatch(
        path.stem
    ).groups()
    assert cfg.train_dataloader.batch_size == int(batch)
    # The recipe of PSMNet's code: 12 pairs at a time.
    assert int(gpus) * int(batch) == 12 or data.startswith('demo')
    key = 'max_epochs' if unit == 'e' else 'max_iters'
    expected = int(length) * (1000 if unit == 'k' else 1)
    assert cfg.train_cfg[key] == expected
    assert cfg.log_processor.by_epoch == (unit == 'e')
    for loader in ('train', 'val', 'test'):
        dataset = cfg[f'{loader}_dataloader'].dataset
        assert dataset.type == DATASETS[data]
    crop = f"'crop_size': ({height}, {width})"
    assert (crop in str(cfg.train_dataloader)) == (data != 'demo-stereo')
    model = cfg.model
    assert (model.aggregation.type.endswith('BasicAggregation')) == (
        variant == '-basic'
    )
    for place, name in (
        ('features', '-ea-features'),
        ('aggregation', '-ea-volume'),
    ):
        attention = model[place].get('attention')
        assert bool(attention) == (variant == name)
        assert not attention or attention == dict(
            type='mmseg_attn.EfficientAttention', zero_init=True
        )
    optimizer = cfg.optim_wrapper.optimizer
    if not data.startswith('demo'):
        expected = dict(type='Adam', lr=1e-3, betas=(0.9, 0.999))
        assert optimizer == expected
        assert model.max_disparity == 192
        assert model.loss_disparity.weights == (0.5, 0.7, 1.0)
        # The last small batch counts, and each side has its own norms.
        assert not cfg.train_dataloader.get('drop_last')
        assert not model.get('one_batch')
    known = model.loss_disparity.max_disparity
    assert known == (float('inf') if data.startswith('kitti') else 192)
    assert cfg.test_evaluator.max_disparity == known
    schedule = cfg.get('param_scheduler')
    assert data.startswith('demo') or bool(schedule) == data.startswith(
        'kitti'
    )


@pytest.mark.parametrize(
    ('year', 'left', 'known', 'validated'),
    [(2012, 'colored_0', 194, 34), (2015, 'image_2', 200, 40)],
)
def test_kitti_as_it_unpacks(year, left, known, validated, tmp_path):
    """No pair in both parts, and 14 iterations on four processes."""
    folders = [left, left[:-1] + {'0': '1', '2': '3'}[left[-1]]]
    folders.append({2012: 'disp_occ', 2015: 'disp_occ_0'}[year])
    for folder in folders:
        (tmp_path / folder).mkdir()
        for number in range(known):
            (tmp_path / folder / f'{number:06}_10.png').touch()
    (tmp_path / left / '000000_11.png').touch()
    (tmp_path / folders[1] / '000000_11.png').touch()
    path = ROOT / f'configs/psmnet/psmnet_4xb3-300e_kitti{year}-256x512.py'
    cfg = Config.fromfile(path)
    parts = []
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        assert loader.dataset.data_root == f'data/kitti{year}/training'
        loader.dataset.update(data_root=str(tmp_path), pipeline=[])
        dataset = BUILDERS.build(loader.dataset)
        parts.append([dataset.get_data_info(i) for i in range(len(dataset))])
    train, val = ({item['img_path'] for item in part} for part in parts)
    assert (len(train), len(val)) == (160, validated) and not train & val
    first = parts[0][0]
    found = [first[k] for k in ('img_path', 'right_path', 'disparity_path')]
    assert found == [f'{tmp_path}/{f}/000000_10.png' for f in folders]
    loader = DataLoader(
        range(160 // 4),
        cfg.train_dataloader.batch_size,
        drop_last=cfg.train_dataloader.get('drop_last', False),
    )
    assert len(loader) == 14


@pytest.mark.parametrize(
    'name', ['psmnet-ea-volume', 'psmnet-ea-features', 'psmnet-basic']
)
def test_trains_one_step(name):
    (path,) = (
        p for p in CONFIGS if p.stem.startswith(f'{name}_4xb3-10e_sceneflow')
    )
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    cfg.model.max_disparity = 16
    cfg.model.features.pool_sizes = (8, 4, 2, 1)
    model = MODELS.build(cfg.model).train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    kind = BasicAggregation if name == 'psmnet-basic' else StackedHourglass
    assert isinstance(model.aggregation, kind)
    assert ('reprojection' in str(model)) == ('-ea-' in name)
    before = {k: v.clone() for k, v in model.named_parameters()}
    sample = SegDataSample()
    truth = torch.randint(0, 16, (1, 32, 48)).float()
    sample.gt_disparity = PixelData(data=truth)
    # Two that differ, of which the widest pooling has one value each.
    pairs = torch.randint(0, 256, (2, 3, 2, 32, 48), dtype=torch.uint8)
    batch = dict(inputs=[*pairs], data_samples=[sample, sample])
    losses = model.train_step(batch, wrapper)
    assert 0 < losses['loss'] < 100
    still = [k for k, v in model.named_parameters() if (v == before[k]).all()]
    # What lies before a map of zeros does not learn in the first step.
    assert all('attention' in key for key in still)
    assert not any('reprojection' in key for key in still)
