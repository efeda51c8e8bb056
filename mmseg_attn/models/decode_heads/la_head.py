# Copyright (c) mmseg_attn contributors.
"""Head with linear attention."""

from __future__ import annotations

from typing import Any

from ...registry import MODELS
from .attention_head import AttentionHead


@MODELS.register_module()
class LAHead(AttentionHead):
    """Linear attention between the convolutions of an FCN head.

    The report does not say, as far as known here, which heads it put the
    attention into: the place is a choice, that of CCNet's attention.

    Args:
        attention: Further arguments of
            :class:`mmseg_attn.layers.LinearAttention`.
        kwargs: Further arguments of :class:`AttentionHead`.

    Linear Attention Mechanism, https://arxiv.org/abs/2007.14902.
    """

    def __init__(self, attention: dict | None = None, **kwargs: Any):
        layer = {'type': 'mmseg_attn.LinearAttention', **(attention or {})}
        super().__init__(attention=layer, **kwargs)
