# Copyright (c) mmseg_attn contributors.
"""3D networks that score disparities."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.arguments import check_counts
from ...layers.inserted_attention import InsertedAttention
from ...ops.core.autograd import no_autocast
from ...registry import MODELS
from .features import START


def conv_bn3d(
    in_channels: int, out_channels: int, stride: int = 1
) -> nn.Sequential:
    """3x3x3 convolution without bias, and its batch norm."""
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, 3, stride, 1, bias=False),
        nn.BatchNorm3d(out_channels),
    )


def conv_bn_relu3d(*args: Any, **kwargs: Any) -> nn.Sequential:
    """:func:`conv_bn3d` and a ReLU behind it."""
    return nn.Sequential(conv_bn3d(*args, **kwargs), nn.ReLU(inplace=True))


def upconv_bn3d(in_channels: int, out_channels: int) -> nn.Sequential:
    """Transposed convolution to twice the size, and its batch norm."""
    return nn.Sequential(
        nn.ConvTranspose3d(
            in_channels,
            out_channels,
            3,
            stride=2,
            padding=1,
            output_padding=1,
            bias=False,
        ),
        nn.BatchNorm3d(out_channels),
    )


def pair(in_channels: int, last_relu: bool = False) -> nn.Sequential:
    """Two convolutions to 32 channels, with a ReLU between them."""
    layers = [
        conv_bn3d(in_channels, 32),
        nn.ReLU(inplace=True),
        conv_bn3d(32, 32),
    ]
    return nn.Sequential(*layers, *[nn.ReLU(inplace=True)] * last_relu)


def classifier() -> nn.Sequential:
    """From 32 channels to a score."""
    return nn.Sequential(
        conv_bn3d(32, 32),
        nn.ReLU(inplace=True),
        nn.Conv3d(32, 1, 3, padding=1, bias=False),
    )


class Hourglass(nn.Module):
    """To a quarter of the size and back, with links to another hourglass.

    Args:
        channels: Channels of the volume.
    """

    def __init__(self, channels: int):
        super().__init__()
        wide = 2 * channels
        self.conv1 = conv_bn_relu3d(channels, wide, stride=2)
        self.conv2 = conv_bn3d(wide, wide)
        self.conv3 = conv_bn_relu3d(wide, wide, stride=2)
        self.conv4 = conv_bn_relu3d(wide, wide)
        self.conv5 = upconv_bn3d(wide, wide)
        self.conv6 = upconv_bn3d(wide, channels)

    def forward(
        self, x: Tensor, before: Tensor | None, after: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Refine a volume.

        Args:
            x: (B, C, D, H, W), D, H and W multiples of 4.
            before: Half-size volume of an earlier hourglass on its way down,
                added on the way up; this one's own where None.
            after: Half-size volume of an earlier hourglass on its way up,
                added on the way down.

        Returns:
            The volume, and its half-size volumes on the way down and up.
        """
        down = _over_planes(self.conv2, self.conv1(x))
        down = F.relu(down if after is None else down + after)
        up = self.conv5(_over_planes(self.conv4, self.conv3(down)))
        up = F.relu(up + (down if before is None else before))
        return self.conv6(up), down, up


def _over_planes(conv: nn.Module, x: Tensor) -> Tensor:
    """Convolve; on a CPU two planes in fp32, whatever autocast says.

    Of a bfloat16 kernel of 3x3x3 over exactly two planes torch's library
    (oneDNN 3.12, in torch 2.13) gives a gradient with what was in memory
    before: NaN, or numbers of any size.
    """
    narrows = x.device.type == 'cpu' and torch.is_autocast_enabled('cpu')
    if not narrows or x.shape[2] != 2:
        return conv(x)
    with no_autocast(x):
        return conv(x.float())


class _Aggregation(BaseModule):
    """What both variants begin with: the first four convolutions."""

    def __init__(
        self,
        in_channels: int,
        attention: dict | None,
        init_cfg: dict | None,
    ):
        check_counts(type(self).__name__, in_channels=in_channels)
        super().__init__(init_cfg or START)
        self.dres0 = pair(in_channels, last_relu=True)
        self.dres1 = pair(32)
        self.attention = None
        if attention:
            self.attention = InsertedAttention(
                32, {'spatial_dims': 3, **attention}
            )

    def _start(self, volume: Tensor) -> Tensor:
        out = self.dres0(volume)
        out = self.dres1(out) + out
        return out if self.attention is None else self.attention(out)


@MODELS.register_module()
class StackedHourglass(_Aggregation):
    """3D network of PSMNet: three hourglasses, each with a score.

    The names of the parameters are the official code's.

    Args:
        in_channels: Channels of the cost volume.
        attention: Config of a layer on the volume of 32 channels behind the
            first four convolutions (``dres0``, ``dres1``), such as
            ``dict(type='mmseg_attn.EfficientAttention')``, which gets
            ``spatial_dims=3``. None means none, as in PSMNet. Where the
            Efficient Attention paper has its module is not known.
        init_cfg: Initialization, as in mmengine. None means that of the
            official code.

    PSMNet, https://arxiv.org/abs/1803.08669, section 3.4.
    """

    def __init__(
        self,
        in_channels: int = 64,
        attention: dict | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(in_channels, attention, init_cfg)
        self.dres2 = Hourglass(32)
        self.dres3 = Hourglass(32)
        self.dres4 = Hourglass(32)
        self.classif1 = classifier()
        self.classif2 = classifier()
        self.classif3 = classifier()

    def forward(self, volume: Tensor) -> list[Tensor]:
        """Score each disparity of each position.

        Args:
            volume: (B, in_channels, D, H, W), D, H and W multiples of 4.

        Returns:
            Three volumes (B, 1, D, H, W), the last one the best.
        """
        start = self._start(volume)
        out1, down, up = self.dres2(start, None, None)
        out1 = out1 + start
        out2, _, up = self.dres3(out1, down, up)
        out2 = out2 + start
        out3 = self.dres4(out2, down, up)[0] + start
        score1 = self.classif1(out1)
        score2 = self.classif2(out2) + score1
        return [score1, score2, self.classif3(out3) + score2]


@MODELS.register_module()
class BasicAggregation(_Aggregation):
    """3D network of the basic PSMNet: residual blocks and one score.

    The names of the parameters are the official code's.

    Args:
        in_channels: Channels of the cost volume.
        attention: Config of a layer, as for :class:`StackedHourglass`.
        init_cfg: Initialization, as in mmengine. None means that of the
            official code.

    PSMNet, https://arxiv.org/abs/1803.08669, section 3.4.
    """

    def __init__(
        self,
        in_channels: int = 64,
        attention: dict | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(in_channels, attention, init_cfg)
        self.dres2 = pair(32)
        self.dres3 = pair(32)
        self.dres4 = pair(32)
        self.classify = classifier()

    def forward(self, volume: Tensor) -> list[Tensor]:
        """Score each disparity of each position.

        Args:
            volume: (B, in_channels, D, H, W).

        Returns:
            One volume (B, 1, D, H, W).
        """
        out = self._start(volume)
        for block in (self.dres2, self.dres3, self.dres4):
            out = block(out) + out
        return [self.classify(out)]
