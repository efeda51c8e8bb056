# Copyright (c) mmseg_attn contributors.
from __future__ import annotations

import torch
from mmcv.cnn import Scale
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..ops import criss_cross_attention
from ..ops._operators import check_backend
from ..registry import MODELS
from ._criss_cross_cpu import FusedCrissCross, can_fuse
from ._layout import channels_first, channels_last, project

_CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def _is_changed(conv):
    """Whether calling the convolution does more than its parameters say."""
    return type(conv) not in _CONVS.values() or bool(
        conv._forward_hooks or conv._forward_pre_hooks
    )


@MODELS.register_module()
class CrissCrossAttention(BaseModule):
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
        reduction: query and key have ``in_channels // reduction`` channels.
        spatial_dims: 2 for maps (B, C, H, W), 3 for clips (B, C, T, H, W).
        gamma_init: What gamma starts at.
        backend: Of the operator; None takes the best that can run.
        init_cfg: As in mmengine. By default the convolutions start as
            torch's do.

    CCNet, https://arxiv.org/abs/1811.11721, section 3.2.
    """

    _abbr_ = 'criss_cross_attention'

    def __init__(
        self,
        in_channels: int,
        reduction: int = 8,
        spatial_dims: int = 2,
        gamma_init: float = 0.0,
        backend: str | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        if spatial_dims not in _CONVS:
            raise ValueError(
                f'spatial_dims must be 1, 2 or 3, got {spatial_dims!r}'
            )
        if in_channels < reduction or reduction < 1:
            raise ValueError(
                f'in_channels must be at least reduction, got in_channels='
                f'{in_channels} and reduction={reduction}: query and key '
                'would have no channel'
            )
        check_backend('criss_cross_attention', backend)
        conv = _CONVS[spatial_dims]
        self.in_channels = in_channels
        self.spatial_dims = spatial_dims
        self.gamma_init = gamma_init
        self.backend = backend
        self.query_conv = conv(in_channels, in_channels // reduction, 1)
        self.key_conv = conv(in_channels, in_channels // reduction, 1)
        self.value_conv = conv(in_channels, in_channels, 1)
        self.gamma = Scale(gamma_init)

    def init_weights(self):
        """Initialise as configured, else undo what a backbone applied."""
        super().init_weights()
        if not self.init_cfg:
            for conv in (self.query_conv, self.key_conv, self.value_conv):
                conv.reset_parameters()
            nn.init.constant_(self.gamma.scale, self.gamma_init)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        official = state_dict.pop(f'{prefix}gamma', None)  # shape (1,)
        if official is not None:
            state_dict[f'{prefix}gamma.scale'] = official.reshape(())
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _check(self, x):
        if x.ndim != 2 + self.spatial_dims or x.shape[1] != self.in_channels:
            axes = ('T', 'H', 'W')[-self.spatial_dims :]
            raise ValueError(
                f'{type(self).__name__} expected a map (B, '
                f'{self.in_channels}, {", ".join(axes)}), got shape '
                f'{tuple(x.shape)}. Set in_channels and spatial_dims to fit '
                'the map'
            )
        if not x.numel():
            raise ValueError(
                f'no axis of the map may be empty, got {tuple(x.shape)}'
            )

    def forward(self, x: Tensor) -> Tensor:
        """Attend from each position to its row and column.

        Args:
            x: (B, C, *spatial).

        Returns:
            Same shape, dtype and memory format.

        Raises:
            ValueError: The rank or number of channels does not fit.
        """
        self._check(x)
        convs = (self.query_conv, self.key_conv, self.value_conv)
        plain = not any(map(_is_changed, convs))
        if plain and self.backend in (None, 'torch') and can_fuse(x):
            parameters = [p for c in convs for p in (c.weight, c.bias)]
            return FusedCrissCross.apply(x, self.gamma.scale, *parameters)
        if plain:
            pixels = channels_last(x)
            qkv = [project(pixels, c.weight, c.bias) for c in convs]
        else:
            qkv = [channels_last(c(x)).unsqueeze(-2) for c in convs]
        out = criss_cross_attention(*qkv, backend=self.backend)
        out = channels_first(out.squeeze(-2), x)
        return torch.addcmul(x, self.gamma.scale.to(out.dtype), out)

    @torch.inference_mode(False)
    @torch.no_grad()
    def trace_attention(self, x: Tensor, weight: Tensor) -> Tensor:
        """Where positions look: the transposed attention matrix at weight.

        For one position, give a weight of 1 there and 0 elsewhere. Chain it
        from the last loop of a recurrent layer to the first for where a
        position looks through all loops. The residual is not followed.

        Args:
            x: The layer's input, (B, C, *spatial).
            weight: How much each output position counts, (B, *spatial).

        Returns:
            How much each input position counts, (B, *spatial). The sum over
            positions is that of weight.

        Raises:
            ValueError: Shapes that do not fit.
        """
        self._check(x)
        if weight.shape != (x.shape[0], *x.shape[2:]):
            raise ValueError(
                f'expected weight (B, *spatial) = '
                f'{(x.shape[0], *x.shape[2:])}, got {tuple(weight.shape)}'
            )
        # A copy, for x may be from inference mode, where nothing has a
        # gradient.
        query, key = (
            channels_last(conv(x.clone())).unsqueeze(-2)
            for conv in (self.query_conv, self.key_conv)
        )
        weight = weight.clone()
        # The gradient of <weight, A v> for v is A^T weight.
        with torch.enable_grad():
            value = torch.zeros_like(weight, dtype=query.dtype)
            value = value[..., None, None].requires_grad_()
            out = criss_cross_attention(
                query, key, value, backend=self.backend
            )
            seed = weight[..., None, None].to(out.dtype)
            (traced,) = torch.autograd.grad(out, value, seed)
        return traced[..., 0, 0]
