# Copyright (c) mmseg_attn contributors.
"""A small Mask R-CNN with five efficient attention modules learns."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmseg_attn.datasets.scenes import write_folder
from mmseg_attn.engine.runner import build_runner

CONFIG = Path(__file__).parents[2] / (
    'configs/demo/mask-rcnn_r18-ea5_fpn_1xb4-1k_demo-instances-96x96.py'
)
ITERS = 75


@pytest.mark.slow
def test_finds_the_training_pictures_objects(tmp_path):
    """From random weights; classes told by colour or shape come first."""
    pytest.importorskip('mmcv._ext', reason='mmdet needs mmcv.ops')
    data = tmp_path / 'data'
    write_folder(data, train=4, val=4)
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = str(tmp_path / 'work')
    cfg.randomness = dict(seed=0)
    cfg.train_cfg.update(max_iters=ITERS, val_interval=ITERS)
    cfg.param_scheduler[1].end = ITERS
    cfg.default_hooks.checkpoint.interval = ITERS
    cfg.default_hooks.logger.interval = 10
    cfg.train_dataloader.batch_size = 2
    train = cfg.train_dataloader.dataset
    train.data_root = f'{data}/'
    for name in ('val', 'test'):
        dataset = cfg[f'{name}_dataloader'].dataset
        dataset.data_root = f'{data}/'
        dataset.ann_file = train.ann_file
        dataset.data_prefix = train.data_prefix
        cfg[f'{name}_evaluator'].ann_file = str(data / train.ann_file)
    runner = build_runner(cfg)
    before = [p.detach().clone() for p in attention(runner.model)]
    runner.train()
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    assert losses[-10:].mean() < 0.4 * losses[:10].mean()
    for old, new in zip(before, attention(runner.model), strict=True):
        assert not torch.equal(old, new)
    scores = runner.message_hub
    for kind in ('bbox', 'segm'):
        found = scores.get_scalar(f'val/coco/{kind}_mAP_50').current()
        assert found > 0.3, f'{kind} AP50 {found}'
    init_default_scope('mmseg')


def attention(model):
    return [p for n, p in model.named_parameters() if 'attention' in n]
