# Copyright (c) mmseg_attn contributors.
"""Head with efficient attention."""

from __future__ import annotations

from typing import Any

from ...registry import MODELS
from .attention_head import AttentionHead


@MODELS.register_module()
class EAHead(AttentionHead):
    """Efficient attention between the convolutions of an FCN head.

    The paper has no semantic segmentation: the head is a choice, with the
    attention where CCNet's is.

    Args:
        attention: Further arguments of
            :class:`mmseg_attn.layers.EfficientAttention`.
        kwargs: Further arguments of :class:`AttentionHead`.

    Efficient Attention, https://arxiv.org/abs/1812.01243.
    """

    def __init__(self, attention: dict | None = None, **kwargs: Any):
        layer = {'type': 'mmseg_attn.EfficientAttention', **(attention or {})}
        super().__init__(attention=layer, **kwargs)
