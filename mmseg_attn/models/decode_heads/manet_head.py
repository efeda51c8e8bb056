# Copyright (c) mmseg_attn contributors.
"""Decoder of MANet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor

from ...registry import MODELS
from .res_unet_head import ChannelAttention, ResUNetHead


class AttentionSum(BaseModule):
    """Attention of positions plus that of channels, on a skip.

    Each has a residual of its own, so that an untrained block doubles its
    map.

    Args:
        channels: Channels of the map.
        attention: Config of the attention of positions; ``in_channels`` is
            added. That of channels is DANet's.
    """

    def __init__(self, channels: int, attention: dict):
        super().__init__()
        layer = {**attention, 'in_channels': channels}
        self.position_attention = MODELS.build(layer)
        self.channel_attention = ChannelAttention()

    def forward(self, x: Tensor) -> Tensor:
        """Attend within a map.

        Args:
            x: (B, channels, H, W).

        Returns:
            A map of the same shape.
        """
        return self.position_attention(x) + self.channel_attention(x)


@MODELS.register_module()
class MANetHead(ResUNetHead):
    """Decoder of MANet: kernel attention on the skips of all four stages.

    For a ResNet-50 whose stages have strides 4 to 32. It is the decoder of
    :class:`mmseg_attn.models.decode_heads.MAResUNetHead` but for its
    attention, which has no convolutions around it.

    Args:
        in_channels: Channels of the four stages.
        in_index: The four stages.
        channels: Channels before the classifier, a 3x3 convolution.
        attention: Config of the attention of positions, any layer. None means
            :class:`mmseg_attn.layers.LinearAttention` with
            ``feature_map='softplus'``, which is kernel attention.
        dropout_ratio: Share of the channels that are dropped before the
            classifier; the official code drops none.
        norm_cfg: Norm of the decoders, as in mmcv. None means batch norm.
        kwargs: Further arguments of mmseg's ``BaseDecodeHead``, but for
            conv_cfg and act_cfg: the convolutions and ReLUs are the official
            code's.

    Raises:
        ValueError: There are not four stages, each half the one before.

    MANet, https://arxiv.org/abs/2009.02130, as in the official code.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (256, 512, 1024, 2048),
        in_index: Sequence[int] = (0, 1, 2, 3),
        channels: int = 32,
        *,
        attention: dict | None = None,
        dropout_ratio: float = 0.0,
        norm_cfg: dict | None = None,
        **kwargs: Any,
    ):
        attention = attention or dict(
            type='mmseg_attn.LinearAttention', feature_map='softplus'
        )
        super().__init__(
            partial(AttentionSum, attention=attention),
            in_channels,
            in_index,
            channels,
            dropout_ratio=dropout_ratio,
            norm_cfg=norm_cfg,
            **kwargs,
        )
