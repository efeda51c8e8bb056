# Copyright (c) mmseg_attn contributors.
"""Criss-cross attention as a layer."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops import axial_attention, criss_cross_attention
from .arguments import check_numbers, given
from .building import MODELS, Scale
from .criss_cross_cpu import FusedCrissCross, can_fuse
from .criss_cross_gpu import CrissCrossStep
from .projected import (
    ProjectedAttention,
    add_attention,
    check_map,
    check_reduction,
    is_changed,
    parameters_of,
)
from .projected_gpu import goes_gpu_way


@MODELS.register_module()
class CrissCrossAttention(ProjectedAttention):
    """Criss-cross attention with projections and a residual.

    ``x + gamma * attention(x)``. gamma is learned and starts at 0, as in
    the official code (the paper's formula has none), so that an untrained
    layer returns its input.

    The parameters have the names of mmcv's layer; state dicts of mmcv's and
    of the official code load unchanged. The layer also serves as a plug-in
    of ResNet stages
    (``plugins=[dict(cfg=dict(type='mmseg_attn.CrissCrossAttention'), ...)]``).

    Args:
        in_channels: Channels C of the map.
        reduction: How many times fewer channels query and key have:
            ``in_channels // reduction``.
        axis: The one spatial axis along which it attends, counted from 0: of
            maps 0 along columns (V), 1 along rows (H). With it this is axial
            attention, with the same parameters; the paper compares with two
            of them in a row. None means all axes at once.
        spatial_dims: 2 for maps (B, C, H, W), 3 for clips (B, C, T, H, W).
        gamma_init: What gamma starts at.
        backend: Backend of the operator. None takes the best that can run.
        init_cfg: Initialization, as in mmengine. Without it the convolutions
            start as torch's do.

    Examples:
        >>> import torch
        >>> from mmseg_attn.layers import CrissCrossAttention
        >>> layer = CrissCrossAttention(64)
        >>> layer(torch.randn(1, 64, 32, 48)).shape
        torch.Size([1, 64, 32, 48])

    CCNet, https://arxiv.org/abs/1811.11721, section 3.2.
    """

    _abbr_ = 'criss_cross_attention'

    def __init__(
        self,
        in_channels: int,
        reduction: int = 8,
        *,
        axis: int | None = None,
        spatial_dims: int = 2,
        gamma_init: float = 0.0,
        backend: str | None = None,
        init_cfg: dict | None = None,
    ):
        check_reduction(type(self).__name__, in_channels, reduction)
        check_numbers(type(self).__name__, gamma_init=gamma_init)
        super().__init__(
            in_channels,
            key_channels=in_channels // reduction,
            value_channels=in_channels,
            operator=(
                criss_cross_attention if axis is None else axial_attention
            ),
            spatial_dims=spatial_dims,
            backend=backend,
            init_cfg=init_cfg,
            **given(axis=axis),
        )
        every = tuple(range(spatial_dims))
        self.axes = every if axis is None else (axis,)
        if self.axes[0] not in every or type(self.axes[0]) is not int:
            raise ValueError(
                f'{type(self).__name__}: axis must be one of {every}, or '
                f'None, got {axis!r}'
            )
        self.gamma_init = gamma_init
        self.gamma = Scale(gamma_init)

    def init_weights(self) -> None:
        """Initialise as configured, else undo what a backbone applied."""
        super().init_weights()
        if not self.init_cfg:
            nn.init.constant_(self.gamma.scale, self.gamma_init)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        official = state_dict.pop(f'{prefix}gamma', None)  # shape (1,)
        if official is not None:
            state_dict[f'{prefix}gamma.scale'] = official.reshape(())
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """Attend from each position to its row and column (or ``axis``).

        Args:
            x: (B, C, *spatial).

        Returns:
            A map of the same shape, dtype and memory format.

        Raises:
            ValueError: The rank or number of channels does not fit.
        """
        check_map(self, x, self.spatial_dims)
        convs = self.convs()
        if not any(map(is_changed, convs)):
            gamma = self.gamma.scale
            parameters = parameters_of(convs)
            if goes_gpu_way(x, self.backend):
                return CrissCrossStep.apply(
                    x, gamma, self.axes, self.backend, *parameters
                )
            if self.backend in (None, 'torch') and can_fuse(x):
                return FusedCrissCross.apply(x, gamma, self.axes, *parameters)
        attended = self.attend(*self.project(x, convs))
        return add_attention(x, self.gamma.scale, attended, self.backend)
