# Copyright (c) mmseg_attn contributors.
"""Head of CCNet."""

from __future__ import annotations

from typing import Any

from ...registry import MODELS
from .attention_head import AttentionHead


@MODELS.register_module()
class CCHead(AttentionHead):
    """Head of CCNet: recurrent criss-cross attention.

    A drop-in for mmseg's head of this name: the same parameters, so that
    its published weights load with ``strict=True``, the same output, and no
    compiled ops needed.

    Args:
        recurrence: Number of loops of the attention; 2 let each position see
            all.
        attention: Further arguments of
            :class:`mmseg_attn.layers.CrissCrossAttention`.
        kwargs: Further arguments of :class:`AttentionHead`.

    CCNet, https://arxiv.org/abs/1811.11721, section 3.1.
    """

    attention_name = 'cca'

    def __init__(
        self, recurrence: int = 2, attention: dict | None = None, **kwargs: Any
    ):
        layer = {'type': 'mmseg_attn.CrissCrossAttention', **(attention or {})}
        super().__init__(attention=layer, recurrence=recurrence, **kwargs)
