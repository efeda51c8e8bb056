# Copyright (c) mmseg_attn contributors.
from __future__ import annotations

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
        kwargs: As of :class:`AttentionHead`.

    Efficient Attention, https://arxiv.org/abs/1812.01243.
    """

    def __init__(self, attention: dict | None = None, **kwargs):
        layer = {'type': 'mmseg_attn.EfficientAttention', **(attention or {})}
        super().__init__(attention=layer, **kwargs)
