# Copyright (c) mmseg_attn contributors.
"""Options of `train` that change a config."""

import pytest
from mmengine.config import Config

from mmseg_attn.apis.training import scale_learning_rate, use_mixed_precision
from mmseg_attn.errors import UserError


def test_mixed_precision():
    cfg = Config(dict(optim_wrapper=dict(clip_grad=None)))
    use_mixed_precision(cfg)
    expected = dict(
        type='AmpOptimWrapper', clip_grad=None, loss_scale='dynamic'
    )
    assert cfg.optim_wrapper == expected
    use_mixed_precision(cfg)  # which it has already
    assert cfg.optim_wrapper == expected
    own = dict(type='OptimWrapper', loss_scale=512.0)
    cfg = Config(dict(optim_wrapper=own))
    use_mixed_precision(cfg)
    assert cfg.optim_wrapper.loss_scale == 512.0
    cfg = Config(dict(optim_wrapper=dict(type='ApexOptimWrapper')))
    with pytest.raises(UserError, match='not ApexOptimWrapper'):
        use_mixed_precision(cfg)


def test_the_learning_rate_is_scaled_where_the_config_says_from_what():
    cfg = Config(dict(auto_scale_lr=dict(enable=False, base_batch_size=16)))
    scale_learning_rate(cfg)
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=16)
    for cfg in (Config({}), Config(dict(auto_scale_lr=dict(enable=False)))):
        with pytest.raises(UserError, match='auto_scale_lr.base_batch_size='):
            scale_learning_rate(cfg)
