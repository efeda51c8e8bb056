# Copyright (c) mmseg_attn contributors.
"""FlexibleRunner with FSDP: each process holds a part of the weights."""

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope

from ..errors import UserError
from .config_errors import config_mistakes


def is_sharded(cfg: Config) -> bool:
    """Whether a config's strategy is FSDP.

    Args:
        cfg: The config.
    """
    strategy = cfg.get('strategy') or {}
    return str(strategy.get('type')).endswith('FSDPStrategy')


def keep_whole(cfg: Config) -> None:
    """Let FSDP save whole models, and refuse what it cannot do.

    Args:
        cfg: The config, which is changed.

    Raises:
        UserError: It is to save parts or to resume, or the model has a
            parameter that cannot be parted.
    """
    if cfg.strategy.setdefault('state_dict_cfg', 'full') == 'local':
        raise UserError(
            "strategy.state_dict_cfg is 'local': what it saves cannot be read "
            "again without running code in it. Set it to 'full'."
        )
    if cfg.get('resume'):
        raise UserError(
            'a training with FSDPStrategy cannot be resumed: mmengine 0.10 '
            'hands the state of the optimizer to torch in the order of before '
            '2.1. Start from its weights: --cfg-options load_from=FILE'
        )
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    with config_mistakes('the model'):
        model = MODELS.build(cfg.model)
    for name, value in model.named_parameters():
        if not value.ndim:
            raise UserError(
                f'FSDPStrategy cannot part the single number {name}, which '
                'the model has: take DDPStrategy.'
            )


def shard_on_cpu(strategy: ConfigDict) -> None:
    """Keep FSDP on a CPU.

    mmengine would name a GPU, and torch 2.13 crash where it moves the whole
    state to where it is.

    Args:
        strategy: What :func:`keep_whole` has changed. It is changed.
    """
    wrapper = strategy.setdefault('model_wrapper', ConfigDict())
    wrapper.setdefault('type', 'MMFullyShardedDataParallel')
    wrapper['device_id'] = 'cpu'
    if strategy.state_dict_cfg == 'full':
        stay = dict(rank0_only=True, offload_to_cpu=False)
        strategy.state_dict_cfg = dict(
            state_dict_type='FULL_STATE_DICT',
            state_dict_config=dict(type='FullStateDictConfig', **stay),
            optim_state_dict_config=dict(
                type='FullOptimStateDictConfig', **stay
            ),
        )
