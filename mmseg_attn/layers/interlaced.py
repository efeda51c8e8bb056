# Copyright (c) mmseg_attn contributors.
from __future__ import annotations

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, Sequential
from torch import Tensor, nn

from ..ops import interlaced_sparse_attention
from ..ops._checks import check_choice
from ..ops._operators import check_backend
from ..ops.interlaced import PADDINGS, pads_of
from ..registry import MODELS

# Official name in a block -> the host's.
_OFFICIAL = (
    (r'^long_range_sa\.', 'global_relation.'),
    (r'^short_range_sa\.', 'local_relation.'),
    (r'\.f_(key|query)\.0\.', r'.\1_project.0.conv.'),
    (r'\.f_(key|query)\.1\.0\.', r'.\1_project.0.bn.'),
    (r'\.f_(key|query)\.2\.', r'.\1_project.1.conv.'),
    (r'\.f_(key|query)\.3\.0\.', r'.\1_project.1.bn.'),
    (r'\.f_value\.(?:0\.)?', '.value_project.'),
    (r'\.W\.0\.', '.output_project.conv.'),
    (r'\.W\.1\.0\.', '.output_project.bn.'),
)


class _Relation(BaseModule):
    """Self-attention with projections, within the groups of one span."""

    def __init__(
        self, in_channels, key_channels, value_channels, out_channels, **cfg
    ):
        super().__init__()

        def projection():
            return Sequential(
                ConvModule(in_channels, key_channels, 1, **cfg),
                ConvModule(key_channels, key_channels, 1, **cfg),
            )

        self.key_project = projection()
        self.query_project = projection()
        self.value_project = nn.Conv2d(in_channels, value_channels, 1)
        self.output_project = ConvModule(
            value_channels, out_channels, 1, **cfg
        )

    def forward(self, x, **options):
        query, key, value = (
            project(x).movedim(1, -1).unsqueeze(-2)
            for project in (
                self.query_project,
                self.key_project,
                self.value_project,
            )
        )
        scale = query.shape[-1] ** -0.5
        out = interlaced_sparse_attention(
            query, key, value, scale=scale, **options
        )
        return self.output_project(out.squeeze(-2).movedim(-1, 1))


@MODELS.register_module()
class InterlacedSparseAttention(BaseModule):
    """Long-range, then short-range self-attention, with projections.

    The parameters have the names of the host's ISAHead; state dicts of the
    official module (of April 2020 and later) load unchanged. No residual.

    Args:
        in_channels: Channels C of the map.
        key_channels: Of queries and keys; both blocks project twice.
        value_channels: Of values.
        out_channels: Of each block's output.
        partition: Sides of the short-range windows, and how many long-range
            groups there are along each axis.
        padding: Of maps that the partition does not divide: ``'attend'``,
            in which projections of zeros take part, as in the official code,
            or ``'mask'``.
        norm_cfg, act_cfg, conv_cfg: Of the projections, as in mmcv.
        backend: Of the operator; None takes the best that can run.
        init_cfg: As in mmengine.

    Interlaced Sparse Self-Attention, https://arxiv.org/abs/1907.12273,
    section 3.2.
    """

    _abbr_ = 'interlaced_sparse_attention'

    def __init__(
        self,
        in_channels: int,
        key_channels: int | None = None,
        value_channels: int | None = None,
        out_channels: int | None = None,
        partition: Sequence[int] = (8, 8),
        padding: str = 'attend',
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        conv_cfg: dict | None = None,
        backend: str | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        check_backend('interlaced_sparse_attention', backend)
        check_choice(type(self).__name__, 'padding', padding, PADDINGS)
        if len(partition) != 2 or not all(
            isinstance(p, int) and p > 0 for p in partition
        ):
            raise ValueError(
                'partition must be two positive integers (of height and '
                f'width), got {partition!r}'
            )
        self.in_channels = in_channels
        self.partition = tuple(partition)
        self.options = dict(
            partition=self.partition, padding=padding, backend=backend
        )
        out_channels = out_channels or in_channels
        widths = (
            key_channels or max(1, in_channels // 2),
            value_channels or in_channels,
            out_channels,
        )
        cfg = dict(
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg or dict(type='BN'),
            act_cfg=act_cfg or dict(type='ReLU'),
        )
        self.global_relation = _Relation(in_channels, *widths, **cfg)
        self.local_relation = _Relation(out_channels, *widths, **cfg)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        for name in [k for k in state_dict if k.startswith(prefix)]:
            ours = name[len(prefix) :]
            for pattern, text in _OFFICIAL:
                ours = re.sub(pattern, text, ours)
            if prefix + ours != name:
                state_dict[prefix + ours] = state_dict.pop(name)
                if ours.endswith('value_project.weight'):  # it has no bias
                    bias = f'{prefix}{ours.removesuffix("weight")}bias'
                    weight = state_dict[prefix + ours]
                    state_dict.setdefault(bias, weight.new_zeros(len(weight)))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within strided grids, then within windows.

        Args:
            x: (B, C, H, W).

        Returns:
            (B, out_channels, H, W), in channels_last memory format.

        Raises:
            ValueError: The rank or number of channels does not fit.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f'{type(self).__name__} expected a map (B, '
                f'{self.in_channels}, H, W), got shape {tuple(x.shape)}. Set '
                'in_channels to fit the map'
            )
        if self.options['padding'] == 'mask':
            return self._attend(x)
        height, width = x.shape[2:]
        (top, bottom), (left, right) = pads_of(x.shape[2:], self.partition)
        # Before the projections, whose results for zeros take part.
        x = F.pad(x, (left, right, top, bottom))
        x = self._attend(x)
        return x[..., top : top + height, left : left + width]

    def _attend(self, x):
        # What the projections return are then positions' rows of channels.
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.global_relation(x, span='long', **self.options)
        return self.local_relation(x, span='short', **self.options)
