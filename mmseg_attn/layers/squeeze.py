# Copyright (c) mmseg_attn contributors.
"""Squeeze-and-attention as a layer."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.core.checks import check_choice
from .arguments import check_configs, check_counts, given
from .building import MODELS, BaseModule, ConvModule, Sequential
from .projected import ACT_CFG, NORM_CFG, check_map, shown

SQUEEZES = ('partial', 'global', 'none')
GATES = {'none': lambda x: x, 'sigmoid': torch.sigmoid, 'relu': F.relu}
# From channels to those of the hidden layer of squeeze-and-excitation.
REDUCTION = 16
INTERPOLATIONS = ('bilinear', 'nearest')


@MODELS.register_module()
class SqueezeAttention(BaseModule):
    """Convolutions gated, and shifted, by convolutions of the pooled map.

    ``attention * residual + attention``, where the attention is as wide and
    high as the residual: it was pooled but in part. No residual connection
    to the input. What the paper leaves open is an option; the defaults are
    those that re-implementations share, but for the interpolation, which
    they have as ``'nearest'``, and for odd maps, of which they pool no edge.

    Args:
        in_channels: Channels of the map.
        out_channels: Channels of the output. None means those of the map.
        kernel_size: Kernel size of all convolutions, odd.
        num_convs: Number of convolutions in each of the two branches.
        squeeze: How far the map is pooled. ``'partial'`` is the paper's
            attention. Its baselines are ``'global'``, squeeze-and-excitation
            in the paper's notation (equation 3: the input, weighed by two
            fully connected layers of its mean, plus the convolutions), and
            ``'none'``, the convolutions alone.
        pool_stride: Window and stride of the average pooling. Windows over
            the edge are averaged over what lies inside.
        gate: Gate of the attention: ``'none'`` (beyond the convolutions' own
            activation), ``'sigmoid'`` or ``'relu'``.
        interpolation: How the attention is enlarged: ``'bilinear'`` or
            ``'nearest'``.
        conv_cfg: Kind of the convolutions, as in mmcv.
        norm_cfg: Norm behind the convolutions, as in mmcv.
        act_cfg: Activation behind the convolutions, as in mmcv.
        init_cfg: Initialization, as in mmengine.

    Examples:
        >>> import torch
        >>> from mmseg_attn.layers import SqueezeAttention
        >>> layer = SqueezeAttention(64, out_channels=128)
        >>> layer(torch.randn(1, 64, 32, 48)).shape
        torch.Size([1, 128, 32, 48])

    Squeeze-and-Attention Networks, https://arxiv.org/abs/1909.03402,
    equations 4 and 5.
    """

    _abbr_ = 'squeeze_attention'

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        *,
        kernel_size: int = 3,
        num_convs: int = 2,
        squeeze: str = 'partial',
        pool_stride: int = 2,
        gate: str = 'none',
        interpolation: str = 'bilinear',
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = NORM_CFG,
        act_cfg: dict | None = ACT_CFG,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        name = type(self).__name__
        check_choice(name, 'squeeze', squeeze, SQUEEZES)
        check_choice(name, 'gate', gate, tuple(GATES))
        check_choice(name, 'interpolation', interpolation, INTERPOLATIONS)
        check_counts(
            name,
            in_channels=in_channels,
            kernel_size=kernel_size,
            num_convs=num_convs,
            pool_stride=pool_stride,
            **given(out_channels=out_channels),
        )
        check_configs(
            name, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg
        )
        if kernel_size % 2 != 1:
            raise ValueError(
                f'{name}: kernel_size must be odd, got {kernel_size}'
            )
        self.in_channels = in_channels
        self.out_channels = out_channels or in_channels
        if squeeze == 'global' and self.out_channels != in_channels:
            raise ValueError(
                f"{name}: squeeze='global' adds to the input, so out_channels "
                f'must be in_channels {in_channels}, got {out_channels}'
            )
        self.squeeze = squeeze
        self.pool_stride = pool_stride
        self.gate = gate
        self.interpolation = interpolation
        conv = partial(
            ConvModule,
            out_channels=self.out_channels,
            kernel_size=kernel_size,
            padding=kernel_size // 2,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
        )

        def branch():
            widths = [in_channels] + [self.out_channels] * (num_convs - 1)
            return Sequential(*(conv(width) for width in widths))

        self.main = branch()
        if squeeze == 'partial':
            self.attention = branch()
        elif squeeze == 'global':
            hidden = max(1, in_channels // REDUCTION)
            self.attention = Sequential(
                nn.Linear(in_channels, hidden),
                nn.ReLU(),
                nn.Linear(hidden, in_channels),
                nn.Sigmoid(),
            )

    def extra_repr(self) -> str:
        """What a printed layer says beside its convolutions."""
        return shown(
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            squeeze=self.squeeze,
            pool_stride=self.pool_stride,
            gate=self.gate,
            interpolation=self.interpolation,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and attend.

        Args:
            x: (B, C, H, W), of any size.

        Returns:
            (B, out_channels, H, W).

        Raises:
            ValueError: The rank or number of channels does not fit.
        """
        check_map(self, x)
        residual = self.main(x)
        if self.squeeze == 'none':
            return residual
        if self.squeeze == 'global':
            weight = self.attention(x.mean((2, 3)))
            return weight[..., None, None] * x + residual
        pooled = F.avg_pool2d(
            x, self.pool_stride, ceil_mode=True, count_include_pad=False
        )
        attention = F.interpolate(
            GATES[self.gate](self.attention(pooled)),
            size=x.shape[2:],
            mode=self.interpolation,
            align_corners=False if self.interpolation == 'bilinear' else None,
        )
        return attention * residual + attention
