# Copyright (c) mmseg_attn contributors.
from types import SimpleNamespace

import pytest


@pytest.fixture(scope='session')
def trained(tmp_path_factory):
    """Config and checkpoint of a segmentor trained by a Runner on disk."""
    from mmengine.config import Config
    from mmengine.runner import Runner
    from tiny_segmentor import config_text, write_dataset

    root = tmp_path_factory.mktemp('trained')
    write_dataset(root / 'data', 24)
    config = root / 'tiny_discs.py'
    config.write_text(config_text(root / 'data'))
    cfg = Config.fromfile(config)
    cfg.work_dir = str(root / 'work')
    runner = Runner.from_cfg(cfg)
    # A gate at zero would let every attention test pass.
    runner.model.decode_head.cca.gamma.scale.data.fill_(0.5)
    runner.train()
    checkpoint = root / 'work' / 'iter_40.pth'
    return SimpleNamespace(config=str(config), checkpoint=str(checkpoint))
