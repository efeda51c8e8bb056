# Copyright (c) mmseg_attn contributors.
"""Efficient attention as a layer."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops import efficient_attention
from ..ops.core.checks import check_choice
from ..ops.efficient import NORMALIZATIONS, check_divisor
from .arguments import check_counts, given
from .building import MODELS
from .layout import channels_first, project
from .projected import CONVS, ProjectedAttention, check_map, is_changed
from .projected_gpu import Reprojection, goes_gpu_way


@MODELS.register_module()
class EfficientAttention(ProjectedAttention):
    """Efficient attention with projections and a residual.

    ``x + reprojection(attention(x))``. State dicts of the official module
    load unchanged. The layer also serves as a plug-in of ResNet stages.

    Args:
        in_channels: Channels C of the map.
        key_channels: Channels of queries and keys, all heads together. None
            means C / 2, the author's common setting.
        value_channels: Channels of values, all heads together. None means C.
        num_heads: Number of heads, an option of the official code; the paper
            has one.
        normalization: ``'softmax'`` or ``'scaling'``, see
            :func:`mmseg_attn.ops.efficient_attention`.
        divisor: Divisor of the scores for ``'scaling'``. None means the
            number of positions.
        zero_init: Whether the reprojection starts at 0, so that an untrained
            layer returns its input: for pre-trained networks. The official
            code starts as torch's convolutions do.
        spatial_dims: 2 for maps (B, C, H, W), 3 for clips (B, C, T, H, W).
        backend: Backend of the operator. None takes the best that can run.
        init_cfg: Initialization, as in mmengine.

    Raises:
        ValueError: ``num_heads`` does not divide the channels.

    Examples:
        >>> import torch
        >>> from mmseg_attn.layers import EfficientAttention
        >>> layer = EfficientAttention(64, num_heads=8)
        >>> layer(torch.randn(1, 64, 32, 48)).shape
        torch.Size([1, 64, 32, 48])

    Efficient Attention, https://arxiv.org/abs/1812.01243.
    """

    _abbr_ = 'efficient_attention'
    projections = ('queries', 'keys', 'values')

    def __init__(
        self,
        in_channels: int,
        key_channels: int | None = None,
        value_channels: int | None = None,
        *,
        num_heads: int = 1,
        normalization: str = 'softmax',
        divisor: float | None = None,
        zero_init: bool = False,
        spatial_dims: int = 2,
        backend: str | None = None,
        init_cfg: dict | None = None,
    ):
        name = type(self).__name__
        check_choice(name, 'normalization', normalization, NORMALIZATIONS)
        widths = given(
            key_channels=key_channels, value_channels=value_channels
        )
        check_counts(
            name, in_channels=in_channels, num_heads=num_heads, **widths
        )
        check_divisor(name, normalization, divisor)
        key_channels = key_channels or max(1, in_channels // 2)
        value_channels = value_channels or in_channels
        if key_channels % num_heads + (value_channels % num_heads):
            raise ValueError(
                f'num_heads must divide key_channels and value_channels, got '
                f'num_heads={num_heads}, key_channels={key_channels} and '
                f'value_channels={value_channels}'
            )
        super().__init__(
            in_channels,
            key_channels=key_channels,
            value_channels=value_channels,
            operator=efficient_attention,
            num_heads=num_heads,
            spatial_dims=spatial_dims,
            backend=backend,
            init_cfg=init_cfg,
            normalization=normalization,
            divisor=divisor,
        )
        self.zero_init = zero_init
        self.reprojection = CONVS[spatial_dims](value_channels, in_channels, 1)
        self._start()

    def _start(self):
        if self.zero_init:
            nn.init.zeros_(self.reprojection.weight)
            nn.init.zeros_(self.reprojection.bias)

    def init_weights(self) -> None:
        """Initialise as configured, else undo what a backbone applied."""
        super().init_weights()
        if not self.init_cfg:
            self._start()

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
        attended = self.attend(*qkv).flatten(-2)
        conv = self.reprojection
        if is_changed(conv):
            return x + conv(attended.movedim(-1, 1))
        if goes_gpu_way(x, self.backend):
            return Reprojection.apply(x, attended, conv.weight, conv.bias)
        out = project(attended, conv.weight, conv.bias).squeeze(-2)
        return x + channels_first(out, x)
