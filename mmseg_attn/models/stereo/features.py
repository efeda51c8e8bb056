# Copyright (c) mmseg_attn contributors.
"""What describes the pictures of a pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import UserError
from ...layers.arguments import check_counts
from ...layers.inserted_attention import InsertedAttention
from ...registry import MODELS

# Normal, with variance 2 / (kernel size * output channels); transposed
# convolutions start as torch's do.
START = dict(type='Kaiming', layer=['Conv2d', 'Conv3d'])


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    stride: int = 1,
    dilation: int = 1,
) -> nn.Sequential:
    """3x3 or 1x1 convolution without bias, and its batch norm."""
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            bias=False,
        ),
        nn.BatchNorm2d(out_channels),
    )


def conv_bn_relu(*args: Any, **kwargs: Any) -> nn.Sequential:
    """:func:`conv_bn` and a ReLU behind it."""
    return nn.Sequential(conv_bn(*args, **kwargs), nn.ReLU(inplace=True))


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut, without a ReLU behind the sum.

    Args:
        in_channels: Channels of the map.
        channels: Channels of the output.
        stride: Stride of the first convolution.
        dilation: Dilation of both.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int, dilation: int
    ):
        super().__init__()
        self.conv1 = conv_bn_relu(
            in_channels, channels, stride=stride, dilation=dilation
        )
        self.conv2 = conv_bn(channels, channels, dilation=dilation)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = conv_bn(in_channels, channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and add.

        Args:
            x: (B, in_channels, H, W).

        Returns:
            (B, channels, h, w).
        """
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.conv2(self.conv1(x)) + shortcut


@MODELS.register_module()
class PSMNetFeatures(BaseModule):
    """Feature extractor of PSMNet: a ResNet with spatial pyramid pooling.

    The names of the parameters are the official code's.

    Args:
        pool_sizes: Sides of the pyramid's pooling windows, in pixels of the
            map at 1/4 of the picture; a picture has at least 4 times the
            largest of them in height and width (256 by default). Smaller
            ones let small pictures in.
        attention: Config of a layer on the 32 channels that come out, such
            as ``dict(type='mmseg_attn.EfficientAttention')``. None means
            none, as in PSMNet. Where the Efficient Attention paper has its
            module is not known.
        align_corners: Setting of the upsampling. Weights of torch 0.4 and
            older expect True, the official ones of torch 1.8 False.
        init_cfg: Initialization, as in mmengine. None means that of the
            official code.

    Raises:
        ValueError: There are not four pool sizes.

    PSMNet, https://arxiv.org/abs/1803.08669, table 1.
    """

    out_channels = 32

    def __init__(
        self,
        pool_sizes: Sequence[int] = (64, 32, 16, 8),
        attention: dict | None = None,
        align_corners: bool = False,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg or START)
        if not isinstance(pool_sizes, Sequence) or len(pool_sizes) != 4:
            raise ValueError(
                f'pool_sizes must be four numbers, got {pool_sizes!r}'
            )
        for size in pool_sizes:
            check_counts(type(self).__name__, pool_sizes=size)
        self.align_corners = align_corners
        self.min_size = 4 * max(pool_sizes)
        relu = nn.ReLU(inplace=True)
        self.firstconv = nn.Sequential(
            conv_bn(3, 32, stride=2),
            relu,
            conv_bn(32, 32),
            relu,
            conv_bn(32, 32),
            relu,
        )
        self.layer1 = self._layer(32, 32, 3)
        self.layer2 = self._layer(32, 64, 16, stride=2)
        self.layer3 = self._layer(64, 128, 3)
        self.layer4 = self._layer(128, 128, 3, dilation=2)
        for number, size in enumerate(pool_sizes, 1):
            branch = nn.Sequential(
                nn.AvgPool2d(size), conv_bn(128, 32, 1), relu
            )
            self.add_module(f'branch{number}', branch)
        self.lastconv = nn.Sequential(
            conv_bn(320, 128), relu, nn.Conv2d(128, 32, 1, bias=False)
        )
        self.attention = None
        if attention:
            self.attention = InsertedAttention(32, attention)

    @staticmethod
    def _layer(
        in_channels: int,
        channels: int,
        blocks: int,
        stride: int = 1,
        dilation: int = 1,
    ) -> nn.Sequential:
        first = ResidualBlock(in_channels, channels, stride, dilation)
        rest = [
            ResidualBlock(channels, channels, 1, dilation)
            for _ in range(blocks - 1)
        ]
        return nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Describe each position of a picture at a quarter of its size.

        Args:
            x: Pictures (B, 3, H, W), H and W multiples of 4.

        Returns:
            (B, 32, H / 4, W / 4).

        Raises:
            UserError: The pictures are smaller than the pooling windows, or
                in training a single one is no larger than they are.
        """
        height, width = x.shape[-2:]
        if any(side < self.min_size for side in (height, width)):
            raise UserError(
                f'pictures of {width} x {height} pixels are smaller than '
                f'the widest pooling of PSMNetFeatures: expected at least '
                f'{self.min_size} x {self.min_size}. Set a larger crop_size, '
                'or smaller pool_sizes in model.features.'
            )
        rows, columns = height // self.min_size, width // self.min_size
        windows = x.shape[0] * rows * columns  # len would bind an export
        if self.training and windows == 1:
            raise UserError(
                f'one picture of {width} x {height} pixels is a single window '
                'of the widest pooling of PSMNetFeatures, which batch norm '
                'cannot train with: set a larger batch_size or crop_size, or '
                'smaller pool_sizes in model.features.'
            )
        raw = self.layer2(self.layer1(self.firstconv(x)))
        skip = self.layer4(self.layer3(raw))
        pooled = [
            F.interpolate(
                getattr(self, f'branch{number}')(skip),
                skip.shape[-2:],
                mode='bilinear',
                align_corners=self.align_corners,
            )
            for number in (4, 3, 2, 1)
        ]
        out = self.lastconv(torch.cat([raw, skip, *pooled], dim=1))
        return out if self.attention is None else self.attention(out)
