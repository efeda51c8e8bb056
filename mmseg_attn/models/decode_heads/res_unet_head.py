# Copyright (c) mmseg_attn contributors.
"""What the decoders of MAResU-Net and MANet share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmseg.models.decode_heads.da_head import CAM
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from ...layers.layout import cut
from ...ops.core.autograd import is_traced, no_autocast
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


class ResUNetHead(BaseDecodeHead):
    """Decoder of a U-Net on a ResNet, with attention on all four skips.

    Args:
        attention_block: Channels of a stage -> the module that its map passes.
        in_channels: Channels of the four stages.
        in_index: The four stages.
        channels: Channels before the classifier, a 3x3 convolution.
        dropout_ratio: Share of the channels that are dropped before the
            classifier.
        norm_cfg: Norm of the decoders, as in mmcv. None means batch norm.
        kwargs: Further arguments of mmseg's ``BaseDecodeHead``, but for
            conv_cfg and act_cfg.

    Raises:
        ValueError: There are not four stages, each half the one before.
    """

    def __init__(
        self,
        attention_block: Callable[[int], nn.Module],
        in_channels: Sequence[int],
        in_index: Sequence[int],
        channels: int,
        *,
        dropout_ratio: float,
        norm_cfg: dict | None,
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
        self.attentions = nn.ModuleList(map(attention_block, in_channels))
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
