# Copyright (c) mmseg_attn contributors.
"""Linear attention of positions and of channels as layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops import channel_linear_attention, linear_attention
from ..ops.core.checks import check_choice
from ..ops.declare import check_backend
from ..ops.linear import FEATURE_MAPS, VARIANTS
from .arguments import check_counts, check_numbers, given
from .building import MODELS, BaseModule
from .layout import channels_last
from .projected import (
    ProjectedAttention,
    add_attention,
    check_map,
    check_reduction,
    shown,
)


@MODELS.register_module()
class LinearAttention(ProjectedAttention):
    """Linear attention between positions, with projections and a residual.

    ``x + gamma * attention(x)``. gamma is learned and starts at 0, as in the
    official code, so that an untrained layer returns its input. State dicts
    of the official position module load unchanged. The layer also serves as
    a plug-in of ResNet stages.

    Args:
        in_channels: Channels C of the map.
        reduction: How many times fewer channels query and key have:
            ``in_channels // reduction``.
        feature_map: ``'taylor'`` (the Linear Attention Mechanism) or
            ``'softplus'`` (MANet's kernel attention).
        eps: Added to the sum of the keys, see
            :func:`mmseg_attn.ops.linear_attention`.
        spatial_dims: 2 for maps (B, C, H, W), 3 for clips (B, C, T, H, W).
        gamma_init: What gamma starts at.
        backend: Backend of the operator. None takes the best that can run.
        init_cfg: Initialization, as in mmengine.

    Examples:
        >>> import torch
        >>> from mmseg_attn.layers import LinearAttention
        >>> layer = LinearAttention(64)
        >>> layer(torch.randn(1, 64, 32, 48)).shape
        torch.Size([1, 64, 32, 48])

    Linear Attention Mechanism, https://arxiv.org/abs/2007.14902; kernel
    attention: MANet, https://arxiv.org/abs/2009.02130.
    """

    _abbr_ = 'linear_attention'

    def __init__(
        self,
        in_channels: int,
        reduction: int = 8,
        *,
        feature_map: str = 'taylor',
        eps: float = 1e-6,
        spatial_dims: int = 2,
        gamma_init: float = 0.0,
        backend: str | None = None,
        init_cfg: dict | None = None,
    ):
        name = type(self).__name__
        check_choice(name, 'feature_map', feature_map, FEATURE_MAPS)
        check_reduction(name, in_channels, reduction)
        check_numbers(name, 0, eps=eps)
        check_numbers(name, gamma_init=gamma_init)
        super().__init__(
            in_channels,
            key_channels=in_channels // reduction,
            value_channels=in_channels,
            operator=linear_attention,
            spatial_dims=spatial_dims,
            backend=backend,
            init_cfg=init_cfg,
            feature_map=feature_map,
            eps=eps,
        )
        self.gamma = nn.Parameter(torch.full((1,), float(gamma_init)))

    def forward(self, x: Tensor) -> Tensor:
        """Attend from each position to all.

        Args:
            x: (B, C, *spatial).

        Returns:
            A map of the same shape, dtype and memory format.

        Raises:
            ValueError: The rank or number of channels does not fit.
        """
        check_map(self, x, self.spatial_dims)
        x, qkv = self.branches(x)
        return add_attention(x, self.gamma, self.attend(*qkv), self.backend)


@MODELS.register_module()
class ChannelLinearAttention(BaseModule):
    """Linear attention between channels, with a residual.

    ``x + gamma * attention(x)`` with gamma, the only parameter, from 0 on.
    State dicts of the official channel module load unchanged.

    Args:
        in_channels: Not used: the layer takes any number of channels. It is
            here because plug-ins are built with it.
        variant: ``'official'`` or ``'corrected'``, see
            :func:`mmseg_attn.ops.channel_linear_attention`.
        eps: Added to the sums of channels, see the operator.
        gamma_init: What gamma starts at.
        backend: Backend of the operator. None takes the best that can run.
        init_cfg: Initialization, as in mmengine.

    Examples:
        >>> import torch
        >>> from mmseg_attn.layers import ChannelLinearAttention
        >>> layer = ChannelLinearAttention(64)
        >>> layer(torch.randn(1, 64, 32, 48)).shape
        torch.Size([1, 64, 32, 48])

    Linear Attention Mechanism, https://arxiv.org/abs/2007.14902.
    """

    _abbr_ = 'channel_linear_attention'

    def __init__(
        self,
        in_channels: int | None = None,
        *,
        variant: str = 'official',
        eps: float = 1e-6,
        gamma_init: float = 0.0,
        backend: str | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        name = type(self).__name__
        check_counts(name, **given(in_channels=in_channels))
        check_choice(name, 'variant', variant, VARIANTS)
        check_numbers(name, 0, eps=eps)
        check_numbers(name, gamma_init=gamma_init)
        check_backend('channel_linear_attention', backend)
        self.options = dict(variant=variant, eps=eps, backend=backend)
        self.gamma = nn.Parameter(torch.full((1,), float(gamma_init)))

    def extra_repr(self) -> str:
        """What a printed layer says."""
        return shown(**self.options)

    def forward(self, x: Tensor) -> Tensor:
        """Attend from each channel to all.

        Args:
            x: (B, C, *spatial), with one to three spatial axes.

        Returns:
            A map of the same shape, dtype and memory format.

        Raises:
            ValueError: The rank does not fit.
        """
        if not 3 <= x.ndim <= 5 or not x.numel():
            raise ValueError(
                f'{type(self).__name__} expected a map (B, C, H, W), got '
                f'shape {tuple(x.shape)}'
            )
        pixels = channels_last(x).unsqueeze(-2)
        attended = channel_linear_attention(pixels, **self.options)
        return add_attention(x, self.gamma, attended, self.options['backend'])
