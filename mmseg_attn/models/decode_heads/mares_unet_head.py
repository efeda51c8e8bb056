# Copyright (c) mmseg_attn contributors.
"""Decoder of MAResU-Net."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmseg.models.decode_heads.da_head import CAM
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from ...layers.arguments import check_shares
from ...layers.layout import cut
from ...ops.core.autograd import is_traced, no_autocast
from ...registry import MODELS
from .arguments import check_head


class ChannelAttention(CAM):
    """DANet's attention of channels, with sums over the map in fp32.

    In fp16 they overflow on maps as large as those of the first stage.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Attend from each channel to all.

        Args:
            x: (B, C, H, W).

        Returns:
            A map of the same shape and dtype.
        """
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        with no_autocast(x):
            # The host's code takes one memory format.
            return super().forward(wide.contiguous()).to(x.dtype)


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


class DecoderBlock(nn.Sequential):
    """To twice the size, by way of a quarter of the channels (LinkNet).

    Args:
        in_channels: Channels of the map.
        out_channels: Channels of the output.
        norm_cfg: Norm, as in mmcv.
    """

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: dict):
        width = in_channels // 4
        super().__init__(
            nn.Conv2d(in_channels, width, 1),
            build_norm_layer(norm_cfg, width)[1],
            nn.ReLU(),
            nn.ConvTranspose2d(width, width, 3, 2, 1, output_padding=1),
            build_norm_layer(norm_cfg, width)[1],
            nn.ReLU(),
            nn.Conv2d(width, out_channels, 1),
            build_norm_layer(norm_cfg, out_channels)[1],
            nn.ReLU(),
        )


@MODELS.register_module()
class MAResUNetHead(BaseDecodeHead):
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
        options = dict(
            kwargs,
            in_channels=in_channels,
            in_index=in_index,
            channels=channels,
            dropout_ratio=dropout_ratio,
            norm_cfg=dict(type='BN') if norm_cfg is None else norm_cfg,
        )
        check_head(name, options)
        check_shares(name, attention_dropout=attention_dropout)
        stages = in_channels, in_index
        if any(isinstance(s, int) or len(s) != 4 for s in stages):
            raise ValueError(
                f'{name} takes four stages, got in_channels={in_channels} and '
                f'in_index={in_index}'
            )
        if min(in_channels) < 4:
            raise ValueError(
                f'{name}: in_channels must be at least 4 each, a quarter of '
                f'which the decoder works on, got {in_channels}'
            )
        options |= dict(in_channels=list(in_channels), in_index=list(in_index))
        # The official code's layers start as torch's do, the classifier too.
        options.setdefault('init_cfg', None)
        super().__init__(input_transform='multiple_select', **options)
        attention = attention or dict(type='mmseg_attn.LinearAttention')
        self.attentions = nn.ModuleList(
            AttentionBlock(width, attention, attention_dropout)
            for width in in_channels
        )
        first = in_channels[0]
        self.decoders = nn.ModuleList(
            DecoderBlock(below, above, self.norm_cfg)
            for above, below in zip(
                (first, *in_channels[:-1]), in_channels, strict=True
            )
        )
        self.up = nn.Sequential(
            nn.ConvTranspose2d(first, channels, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
        )
        self.conv_seg = nn.Conv2d(channels, self.out_channels, 3, padding=1)

    def _forward_feature(self, inputs) -> Tensor:
        stages = self._transform_inputs(inputs)
        skips = [a(x) for a, x in zip(self.attentions, stages, strict=True)]
        x = skips.pop()
        for decoder in reversed(self.decoders[1:]):
            skip = skips.pop()
            x = decoder(x)
            # Twice a size that was rounded up can be one too many.
            down, right = (
                a - b for a, b in zip(x.shape[2:], skip.shape[2:], strict=True)
            )
            if not is_traced() and not {down, right} <= {0, 1}:
                raise ValueError(
                    f'{type(self).__name__} expects each stage to be half as '
                    f'large as the one before, got {tuple(skip.shape)} before '
                    f'a stage of half of {tuple(x.shape)}: the backbone must '
                    'have strides (1, 2, 2, 2) and no dilation'
                )
            x = cut(x, (0, right, 0, down)) + skip
        return self.up(self.decoders[0](x))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits of feature maps.

        Args:
            inputs: Feature maps of the backbone, (B, C, H, W) each.

        Returns:
            (B, num_classes, 4 * H, 4 * W) of a first stage (B, C, H, W).
        """
        return self.cls_seg(self._forward_feature(inputs))
