# Copyright (c) mmseg_attn contributors.
"""Configs of stereo networks: what their names say, and one step."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmseg_attn.models import BasicAggregation, StackedHourglass

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(ROOT.glob('configs/*/psmnet*.py'))
NAME = re.compile(
    r'psmnet(-basic|-ea-features|-ea-volume)?_(\d)xb(\d)-(\d+)([ek]?)_'
    r'(sceneflow|kitti2015|demo-stereo|demo-motorcycle)-(\d+)x(\d+)'
)
DATASETS = {
    'sceneflow': 'mmseg_attn.SceneFlowDataset',
    'kitti2015': 'mmseg_attn.StereoFolder',
    'demo-stereo': 'mmseg_attn.StereoFolder',
    'demo-motorcycle': 'mmseg_attn.StereoFolder',
}


def test_there_are_configs():
    names = {path.stem for path in CONFIGS}
    sceneflow = {n for n in names if 'sceneflow' in n}
    assert len(sceneflow) == 4 and len(names) == len(CONFIGS) == 10


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
    known = model.loss_disparity.max_disparity
    assert known == (float('inf') if data == 'kitti2015' else 192)
    assert cfg.test_evaluator.max_disparity == known
    schedule = cfg.get('param_scheduler')
    assert data.startswith('demo') or bool(schedule) == (data == 'kitti2015')


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
    pair = torch.randint(0, 256, (3, 2, 32, 48), dtype=torch.uint8)
    batch = dict(inputs=[pair, pair], data_samples=[sample, sample])
    losses = model.train_step(batch, wrapper)
    assert 0 < losses['loss'] < 100
    still = [k for k, v in model.named_parameters() if (v == before[k]).all()]
    # What lies before a map of zeros does not learn in the first step.
    assert all('attention' in key for key in still)
    assert not any('reprojection' in key for key in still)
