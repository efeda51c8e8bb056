# Copyright (c) mmseg_attn contributors.
"""Decoder of MAResU-Net."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...layers.arguments import check_shares
from ...registry import MODELS
from .res_unet_head import ChannelAttention, ResUNetHead


class AttentionBlock(BaseModule):
    """Attention of positions and of channels, side by side, on a skip.

    Args:
        channels: Channels of the map.
        attention: Config of the attention of positions; ``in_channels`` is
            added. That of channels is DANet's.
        dropout: Share of the channels that are dropped.
    """

    def __init__(self, channels: int, attention: dict, dropout: float):
        super().__init__()

        def end():
            return nn.Sequential(
                nn.Dropout2d(dropout),
                nn.Conv2d(channels, channels, 1),
                nn.ReLU(),
            )

        self.start = nn.Conv2d(channels, channels, 3, padding=1)
        layer = {**attention, 'in_channels': channels}
        self.position_attention = MODELS.build(layer)
        self.channel_attention = ChannelAttention()
        self.position_end, self.channel_end, self.end = end(), end(), end()

    def forward(self, x: Tensor) -> Tensor:
        """Attend within a map.

        Args:
            x: (B, channels, H, W).

        Returns:
            A map of the same shape.
        """
        x = F.relu(self.start(x))
        positions = self.position_end(self.position_attention(x))
        channels = self.channel_end(self.channel_attention(x))
        return self.end(positions + channels)


@MODELS.register_module()
class MAResUNetHead(ResUNetHead):
    """Decoder of MAResU-Net: attention on the skips of all four stages.

    For a ResNet-18 or -34 whose stages have strides 4 to 32. Logits have
    the picture's size where that is a multiple of 4, else a little more, and
    the segmentor resizes them.

    Args:
        in_channels: Channels of the four stages.
        in_index: The four stages.
        channels: Channels before the classifier, a 3x3 convolution.
        attention: Config of the attention of positions, any layer. None means
            :class:`mmseg_attn.layers.LinearAttention`.
        attention_dropout: Share of the channels that are dropped in the
            attention blocks.
        dropout_ratio: Share of the channels that are dropped before the
            classifier; the official code drops none.
        norm_cfg: Norm of the decoders, as in mmcv. None means batch norm.
        kwargs: Further arguments of mmseg's ``BaseDecodeHead``, but for
            conv_cfg and act_cfg: the convolutions and ReLUs are the official
            code's.

    Raises:
        ValueError: There are not four stages, each half the one before.

    MAResU-Net, https://arxiv.org/abs/2011.14302, as in the official code.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (64, 128, 256, 512),
        in_index: Sequence[int] = (0, 1, 2, 3),
        channels: int = 32,
        *,
        attention: dict | None = None,
        attention_dropout: float = 0.1,
        dropout_ratio: float = 0.0,
        norm_cfg: dict | None = None,
        **kwargs: Any,
    ):
        name = type(self).__name__
        check_shares(name, attention_dropout=attention_dropout)
        attention = attention or dict(type='mmseg_attn.LinearAttention')
        super().__init__(
            partial(
                AttentionBlock, attention=attention, dropout=attention_dropout
            ),
            in_channels,
            in_index,
            channels,
            dropout_ratio=dropout_ratio,
            norm_cfg=norm_cfg,
            **kwargs,
        )
