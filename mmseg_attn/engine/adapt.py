# Copyright (c) mmseg_attn contributors.
"""Put into a config what keeps a training safe, and what a CPU needs."""

import datetime
import os
from pathlib import Path

import torch.distributed as dist
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.registry import VISUALIZERS

from ..errors import UserError
from .data_checks import add_file_checks
from .sharded import is_sharded, keep_whole, shard_on_cpu


def adapt(cfg: Config, train: bool) -> list[str]:
    """Change a config in place for this machine.

    It gets a work folder, checks of labels, classes and channels, for a
    training exact resuming, and without a GPU what runs there.

    Args:
        cfg: The config, which is changed.
        train: Whether it is to train.

    Returns:
        What runs otherwise than the config says, a line each.

    Raises:
        UserError: It needs a GPU, and there is none, or FSDP what it cannot.
    """
    if not cfg.get('work_dir'):
        name = Path(cfg.filename).stem if cfg.filename else 'run'
        cfg.work_dir = os.path.join('work_dirs', name)
    _add_hook(cfg, 'mmseg_attn.CheckSetupHook')
    add_file_checks(cfg)
    _name_visualizer(cfg)
    if train:
        _make_resumable(cfg)
    if is_sharded(cfg):
        keep_whole(cfg)
    return _adapt_to_cpu(cfg) if get_device() == 'cpu' else []


def _make_resumable(cfg: Config) -> None:
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    saver = hooks.setdefault('checkpoint', dict(type='CheckpointHook'))
    if saver and saver.get('type') in (
        'CheckpointHook',
        'mmengine.CheckpointHook',
    ):
        saver['type'] = 'mmseg_attn.SafeCheckpointHook'
    _add_hook(cfg, 'mmseg_attn.ReplayHook')
    loader = cfg.get('train_dataloader')
    if loader and loader.sampler.type != 'mmseg_attn.ReplaySampler':
        loader.sampler = dict(
            type='mmseg_attn.ReplaySampler', sampler=loader.sampler
        )


def _name_visualizer(cfg: Config) -> None:
    """Let the runner name it where there is one of its name already.

    mmengine would take that one, which draws into the folder of an earlier
    run of this process.
    """
    visualizer = cfg.get('visualizer') or {}
    name = visualizer.get('name')
    scope = cfg.get('default_scope', 'mmseg')
    with VISUALIZERS.switch_scope_and_registry(scope) as registry:
        kind = registry.get(str(visualizer.get('type')))
    if name and kind and kind.check_instance_created(name):
        del visualizer['name']


def _add_hook(cfg: Config, name: str) -> None:
    hooks = list(cfg.get('custom_hooks') or [])
    if all(hook.get('type') != name for hook in hooks):
        hooks.append(dict(type=name))
    cfg.custom_hooks = hooks


def _adapt_to_cpu(cfg: Config) -> list[str]:
    """Change what needs a GPU, and say so."""
    notes = []
    wrapper = cfg.get('optim_wrapper') or {}
    if wrapper.get('type') == 'AmpOptimWrapper':
        wrapper['type'] = 'mmseg_attn.BFloat16OptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(key, None)
        notes.append('No GPU: mixed precision runs in bfloat16.')
    launcher = cfg.get('launcher', 'none')
    if launcher == 'none':
        return notes
    if launcher != 'pytorch':
        raise UserError(
            f'no GPU found: without one, several processes need --launcher '
            f'pytorch (torchrun, tools/dist_train.sh), not {launcher}.'
        )
    if not dist.is_initialized():
        # mmengine would choose a GPU first, even with the gloo backend.
        timeout = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout')
        dist.init_process_group(
            'gloo',
            timeout=timeout and datetime.timedelta(seconds=timeout),
        )
    if is_sharded(cfg):
        shard_on_cpu(cfg.strategy)
        return notes
    wrapper = cfg.setdefault('model_wrapper_cfg', ConfigDict())
    strategy = cfg.get('strategy') or {}
    if str(strategy.get('type')).endswith('DDPStrategy'):  # FlexibleRunner
        wrapper = strategy.setdefault('model_wrapper', ConfigDict())
    wrapper.setdefault('type', 'MMDistributedDataParallel')
    wrapper.setdefault('device_ids', None)
    wrapper.setdefault('broadcast_buffers', False)
    wrapper.setdefault(
        'find_unused_parameters', cfg.get('find_unused_parameters', False)
    )
    if replace_type(cfg.get('model'), 'SyncBN', 'BN'):
        notes.append(
            'No GPU: SyncBN runs as BN, with the statistics of each process '
            'for itself. Give each process enough pictures.'
        )
    return notes


def replace_type(config: object, old: str, new: str) -> int:
    """Replace a type wherever it stands.

    Args:
        config: A config, or a part of one, which is changed.
        old: The type that goes.
        new: What stands there instead.

    Returns:
        How often it stood there.
    """
    if isinstance(config, (list, tuple)):
        return sum(replace_type(value, old, new) for value in config)
    if not isinstance(config, dict):
        return 0
    count = sum(replace_type(value, old, new) for value in config.values())
    if config.get('type') == old:
        config['type'] = new
        count += 1
    return count
