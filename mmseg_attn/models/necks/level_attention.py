# Copyright (c) mmseg_attn contributors.
"""Attention on levels of a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule, ModuleDict
from torch import Tensor

from ...layers.inserted_attention import InsertedAttention
from ...registry import MODELS


@MODELS.register_module()
class LevelAttention(BaseModule):
    """Attention on some levels of a feature pyramid, a layer for each.

    Stands behind an FPN in the hosts' list form::

        neck=[
            dict(type='FPN', ...),
            dict(
                type='mmseg_attn.LevelAttention',
                in_channels=256,
                levels=(2, 3, 4),
                layer=dict(type='mmseg_attn.EfficientAttention'),
            ),
        ]

    Args:
        in_channels: Channels of all levels.
        levels: Levels with attention, counted from 0, the finest.
        layer: Config of the layer, as for ``InsertedAttention``.
        init_cfg: Initialization, as in mmengine.
        kwargs: Further arguments of ``InsertedAttention``.

    Raises:
        ValueError: ``levels`` is no sequence of integers, is empty, negative
            or names one twice.
    """

    def __init__(
        self,
        in_channels: int,
        levels: Sequence[int],
        layer: dict,
        init_cfg: dict | None = None,
        **kwargs: Any,
    ):
        super().__init__(init_cfg)
        if (
            not isinstance(levels, Sequence)
            or not levels
            or any(type(level) is not int or level < 0 for level in levels)
            or len(set(levels)) < len(levels)
        ):
            raise ValueError(
                'levels must be different numbers from 0, the finest, on, '
                f'such as (2, 3, 4), got {levels!r}'
            )
        self.levels = levels = tuple(levels)
        # Of mmengine, so that init_weights reaches the layers.
        self.attentions = ModuleDict(
            {
                str(level): InsertedAttention(in_channels, layer, **kwargs)
                for level in levels
            }
        )

    def check(self, number: int | None) -> None:
        """Refuse a pyramid of too few levels.

        Args:
            number: How many it has, if known.

        Raises:
            ValueError: One of ``levels`` is not there.
        """
        if number is not None and max(self.levels) >= number:
            raise ValueError(
                f'levels={self.levels}, but the pyramid has {number}: '
                f'expected 0 to {number - 1}'
            )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Attend within each of the levels.

        Args:
            inputs: Maps (B, in_channels, H, W) of all levels.

        Returns:
            Maps of the same shapes.

        Raises:
            ValueError: There are too few levels.
        """
        self.check(len(inputs))
        return tuple(
            self.attentions[str(level)](x) if level in self.levels else x
            for level, x in enumerate(inputs)
        )
