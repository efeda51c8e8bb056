# Copyright (c) mmseg_attn contributors.
"""A host's feature pyramid with attention behind its levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ...registry import MODELS
from .level_attention import LevelAttention


@MODELS.register_module()
def AttentionNeck(  # noqa: N802  (stands for a class in configs)
    levels: Sequence[int],
    layer: dict,
    base: str = 'FPN',
    recurrence: int = 1,
    residual: bool = False,
    gamma_init: float = 0.0,
    **kwargs: Any,
) -> nn.Module:
    """Build a host's feature pyramid and put attention behind its levels.

    The names of the pyramid's parameters stay, so that trained detectors
    load; those of the attention begin with ``attention``. (In the hosts' list
    form, ``neck=[FPN, LevelAttention]``, they do not: ``neck.0.`` stands
    before each.)

    Args:
        levels: Levels with attention, counted from 0, the finest.
        layer: Config of the layer, as for :class:`LevelAttention`.
        base: Type of the pyramid, one with ``out_channels``.
        recurrence: How often the layer is applied.
        residual: Whether its output is added to its input.
        gamma_init: What the factor of the added output starts at.
        kwargs: Arguments of the pyramid.

    Returns:
        The pyramid.

    Raises:
        ValueError: A level is not there, or the pyramid has no
            ``out_channels``.
    """
    neck = MODELS.build({**kwargs, 'type': base})
    if not hasattr(neck, 'out_channels'):
        raise ValueError(
            f'base={base!r} does not say its out_channels, as an FPN does: '
            'put attention behind it in the list form, neck=[dict(type='
            f'{base!r}, ...), dict(type="mmseg_attn.LevelAttention", '
            'in_channels=...)]'
        )
    attention = LevelAttention(
        neck.out_channels,
        levels,
        layer,
        recurrence=recurrence,
        residual=residual,
        gamma_init=gamma_init,
    )
    attention.check(getattr(neck, 'num_outs', None))
    neck.add_module('attention', attention)
    neck.register_forward_hook(_attend)
    return neck


def _attend(neck, inputs, outputs):
    return neck.attention(outputs)
