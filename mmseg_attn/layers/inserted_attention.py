# Copyright (c) mmseg_attn contributors.
"""An attention layer put into a network that exists."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .arguments import check_counts, check_numbers
from .building import MODELS, BaseModule


class InsertedAttention(BaseModule):
    """An attention layer between two modules of a network that exists.

    Args:
        in_channels: Channels of the map, which stay as many.
        layer: Config of any layer on (B, C, H, W) maps; ``in_channels`` is
            added. Layers of this package start as the identity by their own
            options: ``EfficientAttention(zero_init=True)``; the others that
            have a residual do by default.
        recurrence: How often the one layer is applied.
        residual: Whether the layer's output, times a learned number, is added
            to its input: for layers without a residual of their own, such as
            ``InterlacedSparseAttention`` and ``ChannelizedAxialAttention``.
        gamma_init: What that number starts at; at 0 a pre-trained network
            starts unchanged. Only with ``residual``.
        init_cfg: Initialization, as in mmengine.

    Raises:
        ValueError: ``recurrence`` is not positive, or the layer has another
            number of output channels.

    Examples:
        >>> import torch
        >>> import mmseg_attn.layers
        >>> from mmseg_attn.layers.inserted_attention import InsertedAttention
        >>> cfg = dict(type='mmseg_attn.CrissCrossAttention')
        >>> attention = InsertedAttention(64, cfg, recurrence=2)
        >>> attention(torch.randn(1, 64, 32, 48)).shape
        torch.Size([1, 64, 32, 48])
    """

    def __init__(
        self,
        in_channels: int,
        layer: dict,
        *,
        recurrence: int = 1,
        residual: bool = False,
        gamma_init: float = 0.0,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        name = type(self).__name__
        check_counts(name, in_channels=in_channels, recurrence=recurrence)
        check_numbers(name, gamma_init=gamma_init)
        self.recurrence = recurrence
        self.layer = MODELS.build({**layer, 'in_channels': in_channels})
        width = getattr(self.layer, 'out_channels', in_channels)
        if isinstance(width, int) and width != in_channels:
            raise ValueError(
                f'{type(self.layer).__name__} has {width} output channels, '
                f'expected {in_channels}, those of the map it is put on'
            )
        self.gamma = None
        if residual:
            self.gamma = nn.Parameter(torch.full((1,), float(gamma_init)))

    def extra_repr(self) -> str:
        """What a printed module says beside its layer."""
        return f'recurrence={self.recurrence}'

    def forward(self, x: Tensor) -> Tensor:
        """Attend within a map.

        Args:
            x: (B, in_channels, H, W).

        Returns:
            A map of the same shape.
        """
        for _ in range(self.recurrence):
            out = self.layer(x)
            x = out if self.gamma is None else x + self.gamma * out
        return x
