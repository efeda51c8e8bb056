# Copyright (c) mmseg_attn contributors.
"""Change a config so that its training differs."""

from mmengine.config import Config

from ..errors import UserError


def use_mixed_precision(cfg: Config) -> None:
    """Let a training use mixed precision.

    Args:
        cfg: The config. It is changed.

    Raises:
        UserError: Its optimizer wrapper has no such variant.
    """
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if kind == 'OptimWrapper':
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    elif kind != 'AmpOptimWrapper':
        raise UserError(
            f'--amp works with optim_wrapper.type OptimWrapper, not {kind}.'
        )


def scale_learning_rate(cfg: Config) -> None:
    """Let a training scale its learning rate with the total batch size.

    Args:
        cfg: The config. It is changed.

    Raises:
        UserError: It does not say which batch size its rate is meant for.
    """
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise UserError(
            '--auto-scale-lr needs the total batch size that the learning '
            'rate of the config is meant for. Name it: --cfg-options '
            'auto_scale_lr.base_batch_size=16'
        )
    cfg.auto_scale_lr.enable = True
