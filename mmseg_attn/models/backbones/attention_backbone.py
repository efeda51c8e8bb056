# Copyright (c) mmseg_attn contributors.
"""A host's ResNet with attention in its stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ...layers.inserted_attention import InsertedAttention
from ...registry import MODELS


@MODELS.register_module()
def AttentionBackbone(  # noqa: N802  (stands for a class in configs)
    attentions: Sequence[dict], base: str = 'ResNet', **kwargs: Any
) -> nn.Module:
    """Build a host's ResNet and put attention at the end of its stages.

    The model is the host's own (ResNet, ResNeXt, ResNetV1c, ...; of
    MMDetection or MMSegmentation, by the config's ``default_scope``). The
    names of its parameters stay, so that its pre-trained weights load; those
    of the attention begin with ``layer{stage}.attention``. A norm within the
    attention follows ``norm_eval`` as the others do.

    Args:
        attentions: For each place a dict with ``stage`` (1 to 4; stage 3 is
            res4 of the papers), optionally ``before_last`` (before the last
            residual block instead of behind it, as the Non-local networks
            have it; default False), and the arguments of
            ``InsertedAttention`` but ``in_channels``.
        base: Type of the backbone, one with ``res_layers``.
        kwargs: Arguments of the backbone.

    Returns:
        The backbone.

    Raises:
        ValueError: A stage is not there, is frozen, has attention already or
            too few blocks, the backbone has no stages of this kind, or
            ``attentions`` is no list of such dicts.
    """
    if isinstance(attentions, dict):
        raise ValueError(
            'attentions is one dict: expected a list of them, such as '
            '[dict(stage=3, layer=...)]'
        )
    backbone = MODELS.build({**kwargs, 'type': base})
    stages = getattr(backbone, 'res_layers', None)
    if not stages or not hasattr(backbone, 'block'):
        raise ValueError(
            f'base={base!r} has no residual stages: expected a ResNet or one '
            'of its kind'
        )
    for item in attentions:
        if not isinstance(item, dict) or not {'stage', 'layer'} <= set(item):
            raise ValueError(
                f'an item of attentions is {item!r}: expected a dict with '
                'stage and layer'
            )
        _insert(backbone, **item)
    return backbone


def _insert(
    backbone: nn.Module,
    stage: int,
    layer: dict,
    before_last: bool = False,
    **kwargs: Any,
) -> None:
    stages = backbone.res_layers
    # True and 3.0 are in a range, too.
    if type(stage) is not int or not 1 <= stage <= len(stages):
        raise ValueError(
            f'stage must be 1 to {len(stages)}, the stages of the backbone, '
            f'got {stage!r}'
        )
    if stage <= backbone.frozen_stages:
        raise ValueError(
            f'attention in stage {stage} would never learn: '
            f'frozen_stages={backbone.frozen_stages}'
        )
    name = stages[stage - 1]
    blocks = getattr(backbone, name)
    if 'attention' in blocks._modules:
        raise ValueError(f'stage {stage} has attention already')
    if before_last and len(blocks) < 2:
        raise ValueError(
            f'before_last needs two blocks, stage {stage} has {len(blocks)}'
        )
    name = str(len(blocks) - 1)
    last = getattr(blocks, name)
    # The widths of some, such as RegNet's, follow no rule.
    conv = last.conv3 if hasattr(last, 'conv3') else last.conv2
    attention = InsertedAttention(conv.out_channels, layer, **kwargs)
    blocks.add_module('attention', attention)
    if before_last:
        # Modules run in the order in which they came, whatever their names.
        delattr(blocks, name)
        blocks.add_module(name, last)
