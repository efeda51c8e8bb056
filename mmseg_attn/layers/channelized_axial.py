# Copyright (c) mmseg_attn contributors.
"""Channelized axial attention as a layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..ops import axial_attention, channelized_axial_attention
from ..ops.declare import check_backend
from .arguments import check_configs, check_counts, check_numbers
from .building import MODELS, BaseModule, ConvModule, build_activation_layer
from .layout import channels_first, channels_last
from .projected import (
    ACT_CFG,
    NORM_CFG,
    check_map,
    check_weight,
    shown,
    transposed_attention,
)

# How the names of an axis' parameters begin.
_NAMES = ('v', 'h')


class ChannelGate(BaseModule):
    """Dense layers without biases and a sigmoid, line by line.

    Args:
        channels: Channels of the lines.
        ratio: Width of the hidden layers, as a share of the channels.
        num_layers: Number of hidden layers.
        act_cfg: Activation of the hidden layers.
    """

    def __init__(
        self, channels: int, ratio: float, num_layers: int, act_cfg: dict
    ):
        super().__init__()
        hidden = max(1, int(channels * ratio))
        widths = [channels] + [hidden] * num_layers
        self.denses = nn.ModuleList(
            nn.Linear(i, o, bias=False)
            for i, o in zip(widths[:-1], widths[1:], strict=True)
        )
        self.dense_end = nn.Linear(widths[-1], channels, bias=False)
        self.act = build_activation_layer(act_cfg)
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise as the official code does (Glorot)."""
        for dense in (*self.denses, self.dense_end):
            nn.init.xavier_uniform_(dense.weight)

    def forward(self, pooled: Tensor) -> Tensor:
        """Gate lines.

        Args:
            pooled: Mean of each line, (B, lines, channels).

        Returns:
            Gates between 0 and 1, of the same shape.
        """
        # The operator pools in fp32, of a half-precision layer too.
        pooled = pooled.to(self.dense_end.weight.dtype)
        for dense in self.denses:
            pooled = self.act(dense(pooled))
        return torch.sigmoid(self.dense_end(pooled))


@MODELS.register_module()
class ChannelizedAxialAttention(BaseModule):
    """Channelized attention along columns, then along rows.

    With ``channel_attention=False`` plain axial attention, along both or one.

    One block of the official code: query and key of each axis are the same
    projection of the input, the value is projected once, both gates have
    weights of their own. No residual, no scale of the scores. The parameters
    have the official names.

    Args:
        in_channels: Channels of the map.
        channels: Channels of the value, and so of the output.
        guided_channels: Channels of query and key.
        axes: The axes along which it attends, in their order: 0 along columns
            (V), 1 along rows (H).
        channel_attention: Whether the gates are there. Without, it is axial
            attention.
        gate_ratio: Width of the gates' hidden layers as a share of channels.
        gate_layers: Number of hidden layers of the gates. How many and how
            wide is the official code's choice.
        gate_act_cfg: Activation of the hidden layers. None means that of the
            author's later code (leaky ReLU), since the first release's
            cannot run.
        conv_cfg: Convolution of the projections, as in mmcv.
        norm_cfg: Norm of the projections, as in mmcv. The official one has an
            epsilon of 1e-3.
        act_cfg: Activation of the projections, as in mmcv.
        backend: Backend of the operator. None takes the best that can run.
        init_cfg: Initialization, as in mmengine.

    Examples:
        >>> import torch
        >>> from mmseg_attn.layers import ChannelizedAxialAttention
        >>> layer = ChannelizedAxialAttention(64, channels=128)
        >>> layer(torch.randn(1, 64, 32, 48)).shape
        torch.Size([1, 128, 32, 48])

    Channelized Axial Attention, https://arxiv.org/abs/2101.07434.
    """

    _abbr_ = 'channelized_axial_attention'

    def __init__(
        self,
        in_channels: int,
        channels: int = 512,
        guided_channels: int = 64,
        *,
        axes: Sequence[int] = (0, 1),
        channel_attention: bool = True,
        gate_ratio: float = 0.25,
        gate_layers: int = 5,
        gate_act_cfg: dict | None = None,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = NORM_CFG,
        act_cfg: dict | None = ACT_CFG,
        backend: str | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        name = type(self).__name__
        check_counts(
            name,
            in_channels=in_channels,
            channels=channels,
            guided_channels=guided_channels,
            gate_layers=gate_layers,
        )
        check_numbers(name, 0, gate_ratio=gate_ratio)
        check_configs(
            name,
            gate_act_cfg=gate_act_cfg,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
        )
        check_backend('channelized_axial_attention', backend)
        if not axes or {*axes} - {0, 1} or len({*axes}) < len(axes):
            raise ValueError(
                f'{name}: axes must be 0 (along columns), 1 (along rows) or '
                f'both in one order, got {axes!r}'
            )
        self.in_channels = in_channels
        self.out_channels = channels
        self.axes, self.channel_attention = tuple(axes), channel_attention
        self.backend = backend
        conv = partial(
            ConvModule,
            in_channels,
            kernel_size=1,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
        )
        for axis in sorted(axes):
            guide = conv(guided_channels)
            self.add_module(f'{_NAMES[axis]}_querykey_convbnrelu', guide)
        self.value_convbnrelu = conv(channels)
        act_cfg = gate_act_cfg or dict(type='LeakyReLU', negative_slope=0.2)
        for axis in sorted(axes) if channel_attention else ():
            gate = ChannelGate(channels, gate_ratio, gate_layers, act_cfg)
            self.add_module(f'{_NAMES[axis]}_c_attention', gate)

    def extra_repr(self) -> str:
        """What a printed layer says beside its modules."""
        return shown(
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            axes=self.axes,
            channel_attention=self.channel_attention,
            backend=self.backend,
        )

    def _guide(self, x, axis):
        """Queries, which are the keys, of columns or of rows."""
        conv = getattr(self, f'{_NAMES[axis]}_querykey_convbnrelu')
        return channels_last(conv(x)).unsqueeze(-2)

    def forward(self, x: Tensor) -> Tensor:
        """Attend along columns, then along rows (``axes``).

        Args:
            x: (B, C, H, W).

        Returns:
            (B, channels, H, W).

        Raises:
            ValueError: The rank or number of channels does not fit.
        """
        check_map(self, x)
        value = self.value_convbnrelu(x)
        out = channels_last(value).unsqueeze(-2)
        for axis in self.axes:
            guide = self._guide(x, axis)
            given = dict(axis=axis, backend=self.backend)
            if self.channel_attention:
                gate = getattr(self, f'{_NAMES[axis]}_c_attention')
                out = channelized_axial_attention(
                    guide, guide, out, gate, **given
                )
            else:
                out = axial_attention(guide, guide, out, **given)
        return channels_first(out.squeeze(-2), value)

    @property
    def trace_note(self) -> str:
        """What one has to know to read a map of :meth:`trace_attention`."""
        if not self.channel_attention:
            return ''
        return (
            f'{type(self).__name__}: the gates of channels are left out; they '
            'weigh what is gathered and not where.'
        )

    def trace_attention(self, x: Tensor, weight: Tensor) -> Tensor:
        """Where positions look, through the rows and then the columns.

        The gates, which weigh channels and not positions, are not followed.
        The arguments and the result are those of
        :meth:`CrissCrossAttention.trace_attention`.
        """
        check_map(self, x)
        check_weight(x, weight)
        for axis in self.axes[::-1]:
            with torch.no_grad():
                guide = self._guide(x, axis)
            attend = partial(axial_attention, axis=axis, backend=self.backend)
            weight = transposed_attention(attend, guide, guide, weight)
        return weight
