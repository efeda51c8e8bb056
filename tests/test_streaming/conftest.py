# Copyright (c) mmseg_attn contributors.
from types import SimpleNamespace

import numpy as np
import pytest
import torch


@pytest.fixture(scope='session')
def segmentor(tmp_path_factory):
    """A segmentor of five classes with random weights, and its files."""
    from mmengine.config import Config
    from tiny_segmentor import config_text

    from mmseg_attn.apis import load_model

    root = tmp_path_factory.mktemp('segmentor')
    cfg = Config.fromstring(config_text(root / 'data'), '.py')
    cfg.model.decode_head.num_classes = 5
    cfg.model.data_preprocessor.test_cfg = dict(size_divisor=4)
    cfg.test_dataloader.dataset.pipeline.pop(1)  # resizes
    names = [f'kind {i}' for i in range(5)]
    cfg.test_dataloader.dataset.metainfo = dict(
        classes=names, palette=[[40 * i, 0, 99] for i in range(5)]
    )
    config, checkpoint = root / 'tiny.py', root / 'random.pth'
    cfg.dump(config)
    torch.manual_seed(0)
    model = load_model(str(config), None, device='cpu', slide=32)
    # Far from a draw, so that rounding decides no class.
    torch.nn.init.normal_(model.decode_head.conv_seg.weight, std=0.5)
    model.decode_head.cca.gamma.scale.data.fill_(0.5)
    torch.save({'state_dict': model.state_dict()}, checkpoint)
    return SimpleNamespace(
        model=model, config=str(config), checkpoint=str(checkpoint)
    )


@pytest.fixture
def pixels():
    """Makes smooth noise (H, W, bands) of one seed."""

    def make(height, width, bands=3, dtype=np.uint8):
        import cv2

        rng = np.random.default_rng(height * width)
        most = np.iinfo(dtype).max
        small = rng.random((height // 5 + 2, width // 5 + 2, bands))
        large = cv2.resize(small, (width, height))
        large = large.reshape(height, width, bands)
        return (large * most).astype(dtype)

    return make
