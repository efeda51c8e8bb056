# Copyright (c) mmseg_attn contributors.
"""mmengine's FlexibleRunner: trains, tests, starts from weights, resumes."""

import pytest
import torch
from tiny_training import tiny_config, write_dataset

from mmseg_attn.engine.runner import build_runner
from mmseg_attn.errors import UserError


@pytest.fixture
def cfg(tmp_path):
    data = write_dataset(tmp_path / 'data', pictures=4)
    cfg = tiny_config(data, tmp_path / 'run', **{'train_cfg.max_iters': 2})
    cfg.train_cfg.val_interval = 2
    cfg.default_hooks.checkpoint.interval = 2
    cfg.runner_type = 'FlexibleRunner'
    cfg.strategy = dict(type='SingleDeviceStrategy')
    cfg.test_dataloader, cfg.test_cfg = cfg.val_dataloader, {}
    cfg.test_evaluator = cfg.val_evaluator
    return cfg


@pytest.mark.slow
def test_trains_tests_and_goes_on(cfg, tmp_path):
    build_runner(cfg).train()
    path = tmp_path / 'run/iter_2.pth'
    saved = torch.load(path, weights_only=True)
    cfg.load_from = str(path)
    tester = build_runner(cfg, train=False)
    tester.test()
    for key, value in tester.model.state_dict().items():
        assert torch.equal(value, saved['state_dict'][key]), key

    cfg.load_from, cfg.resume = None, 'auto'
    cfg.train_cfg.max_iters = 4
    build_runner(cfg).train()
    assert (tmp_path / 'run/iter_4.pth').exists()

    cfg.resume, cfg.work_dir = False, str(tmp_path / 'again')
    cfg.load_from = str(path)
    cfg.train_cfg.max_iters = 2
    build_runner(cfg).train()


@pytest.mark.parametrize(
    'changes, message',
    [
        ({}, r'single number decode_head\.cca\.gamma\.scale.*DDPStrategy'),
        ({'strategy.state_dict_cfg': 'local'}, "Set it to 'full'"),
        ({'resume': 'auto'}, 'FSDPStrategy cannot be resumed'),
    ],
)
def test_what_fsdp_cannot_do(cfg, changes, message):
    cfg.strategy = dict(type='FSDPStrategy')
    cfg.merge_from_dict(changes)
    with pytest.raises(UserError, match=message):
        build_runner(cfg)


def test_weights_of_another_model_are_refused(cfg, tmp_path):
    torch.save({'a.weight': torch.zeros(3)}, tmp_path / 'other.pth')
    cfg.load_from = str(tmp_path / 'other.pth')
    for train in (True, False):
        with pytest.raises(UserError, match='checkpoint of another model'):
            build_runner(cfg, train=train)
