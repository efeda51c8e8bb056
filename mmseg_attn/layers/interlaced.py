# Copyright (c) mmseg_attn contributors.
"""Interlaced sparse self-attention as a layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import interlaced_sparse_attention
from ..ops.core.autograd import is_traced
from ..ops.core.checks import check_choice
from ..ops.declare import check_backend
from ..ops.interlaced import PADDINGS, SPANS, pads_of
from .arguments import check_configs, check_counts, given
from .building import MODELS, BaseModule, ConvModule, Sequential
from .layout import cut
from .official import fold_biases
from .projected import (
    ACT_CFG,
    NORM_CFG,
    check_map,
    check_weight,
    shown,
    transposed_attention,
)

HALVES = [['long'], ['short'], ['long', 'short']]
# Half of the attention -> its block, named as the host's head has it.
_BLOCKS = {'long': 'global_relation', 'short': 'local_relation'}
# Official name in a block -> the host's.
_OFFICIAL = (
    (r'^long_range_sa\.', 'global_relation.'),
    (r'^short_range_sa\.', 'local_relation.'),
    (r'\.f_(key|query)\.0\.', r'.\1_project.0.conv.'),
    (r'\.f_(key|query)\.1\.(?:0\.)?', r'.\1_project.0.bn.'),
    (r'\.f_(key|query)\.2\.', r'.\1_project.1.conv.'),
    (r'\.f_(key|query)\.3\.(?:0\.)?', r'.\1_project.1.bn.'),
    (r'\.f_value\.(?:0\.)?', '.value_project.'),
    (r'\.W\.0\.', '.output_project.conv.'),
    (r'\.W\.1\.(?:0\.)?', '.output_project.bn.'),
)


def from_official(state_dict: dict[str, Tensor], prefix: str = '') -> None:
    """Rename weights of the official block, and fit their biases.

    The value's bias, which later code left out, is 0; that of a convolution
    before a norm goes into the norm's mean.

    Args:
        state_dict: Changed in place; our own names are left alone.
        prefix: How the names of the block's weights begin.
    """
    for name in [k for k in state_dict if k.startswith(prefix)]:
        ours = name[len(prefix) :]
        for pattern, text in _OFFICIAL:
            ours = re.sub(pattern, text, ours)
        if prefix + ours != name:
            value = state_dict[prefix + ours] = state_dict.pop(name)
            if ours.endswith('value_project.weight'):
                bias = prefix + ours.removesuffix('weight') + 'bias'
                state_dict.setdefault(bias, value.new_zeros(len(value)))
    fold_biases(state_dict, prefix)


class _Relation(BaseModule):
    """Self-attention with projections, within the groups of one span."""

    def __init__(
        self,
        in_channels,
        key_channels,
        value_channels,
        out_channels,
        output_norm,
        **cfg,
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
        if not output_norm:
            cfg = {**cfg, 'norm_cfg': None, 'act_cfg': None}
        self.output_project = ConvModule(
            value_channels, out_channels, 1, **cfg
        )

    def _attend(self, query, key, value, **options):
        scale = query.shape[-1] ** -0.5
        return interlaced_sparse_attention(
            query, key, value, scale=scale, **options
        )

    def _project(self, x, *projections):
        return [p(x).movedim(1, -1).unsqueeze(-2) for p in projections]

    def forward(self, x, **options):
        qkv = self._project(
            x, self.query_project, self.key_project, self.value_project
        )
        out = self._attend(*qkv, **options)
        return self.output_project(out.squeeze(-2).movedim(-1, 1))

    def trace(self, x, weight, **options):
        guides = self._project(x, self.query_project, self.key_project)
        attend = partial(self._attend, **options)
        return transposed_attention(attend, *guides, weight)


@MODELS.register_module()
class InterlacedSparseAttention(BaseModule):
    """Long-range, then short-range self-attention, with projections.

    The parameters have the names of the host's ISAHead; state dicts of the
    official block load unchanged, those of before April 2020 with
    ``output_norm=False``. No residual.

    Args:
        in_channels: Channels C of the map.
        key_channels: Channels of queries and keys, which both blocks project
            twice. None means C / 2.
        value_channels: Channels of values. None means C.
        out_channels: Channels of each block's output. None means C.
        partition: Sides of the short-range windows, and how many long-range
            groups there are along each axis.
        spans: The halves in their order: ``'long'``, within strided grids,
            and ``'short'``, within windows. One alone, or the other order,
            are ablations of the paper.
        bins: How many parts the map is cut into along each axis; the
            attention works within each of them, as in the official code's
            pyramid.
        padding: What becomes of maps that the partition does not divide:
            ``'attend'``, in which projections of zeros take part, as in the
            official code, or ``'mask'``.
        output_norm: Whether norm and activation follow each block's last
            convolution: so in the official code since April 2020 and in the
            host. Without, as when the paper came out, it has a bias alone.
        norm_cfg: Norm of the projections, as in mmcv.
        act_cfg: Activation of the projections, as in mmcv.
        conv_cfg: Convolution of the projections, as in mmcv.
        backend: Backend of the operator. None takes the best that can run.
        init_cfg: Initialization, as in mmengine.

    Examples:
        >>> import torch
        >>> from mmseg_attn.layers import InterlacedSparseAttention
        >>> layer = InterlacedSparseAttention(64, partition=(8, 8))
        >>> layer(torch.randn(1, 64, 32, 48)).shape
        torch.Size([1, 64, 32, 48])

    Interlaced Sparse Self-Attention, https://arxiv.org/abs/1907.12273.
    """

    _abbr_ = 'interlaced_sparse_attention'

    def __init__(
        self,
        in_channels: int,
        key_channels: int | None = None,
        value_channels: int | None = None,
        out_channels: int | None = None,
        *,
        partition: Sequence[int] = (8, 8),
        spans: Sequence[str] = SPANS,
        bins: int = 1,
        padding: str = 'attend',
        output_norm: bool = True,
        norm_cfg: dict | None = NORM_CFG,
        act_cfg: dict | None = ACT_CFG,
        conv_cfg: dict | None = None,
        backend: str | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        check_backend('interlaced_sparse_attention', backend)
        name = type(self).__name__
        widths = given(
            key_channels=key_channels,
            value_channels=value_channels,
            out_channels=out_channels,
        )
        check_counts(name, in_channels=in_channels, bins=bins, **widths)
        check_configs(
            name, norm_cfg=norm_cfg, act_cfg=act_cfg, conv_cfg=conv_cfg
        )
        check_choice(name, 'padding', padding, PADDINGS)
        if len(partition) != 2 or not all(
            isinstance(p, int) and p > 0 for p in partition
        ):
            raise ValueError(
                'partition must be two positive integers (of height and '
                f'width), got {partition!r}'
            )
        if isinstance(spans, str) or sorted(spans) not in HALVES:
            raise ValueError(
                f"{name}: spans must be 'long', 'short' or both in one order, "
                f'such as {SPANS}, got {spans!r}'
            )
        if bins > 1 and padding == 'mask':
            raise ValueError(
                f'{name}: parts of a map are filled up with zeros that take '
                f"part, so bins={bins} needs padding='attend'"
            )
        self.in_channels, self.bins = in_channels, bins
        self.partition, self.spans = tuple(partition), tuple(spans)
        self.options = dict(
            partition=self.partition, padding=padding, backend=backend
        )
        self.out_channels = out_channels = out_channels or in_channels
        widths = (
            key_channels or max(1, in_channels // 2),
            value_channels or in_channels,
            out_channels,
        )
        cfg = dict(
            output_norm=output_norm,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
        )
        for span in self.spans:
            block = _Relation(in_channels, *widths, **cfg)
            self.add_module(_BLOCKS[span], block)
            in_channels = out_channels

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        from_official(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        """What a printed layer says beside its modules."""
        return shown(
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            spans=self.spans,
            bins=None if self.bins == 1 else self.bins,
            **self.options,
        )

    def _blocks(self):
        """Each half with the span in which it attends, in their order."""
        for span in self.spans:
            options = dict(self.options, span=span)
            yield getattr(self, _BLOCKS[span]), options

    def forward(self, x: Tensor) -> Tensor:
        """Attend within strided grids, then within windows (``spans``).

        Args:
            x: (B, C, H, W).

        Returns:
            (B, out_channels, H, W), in channels_last memory format unless
            the map is cut into bins.

        Raises:
            ValueError: The rank or number of channels does not fit.
        """
        check_map(self, x)
        return self._in_bins(self._attend, x)

    def trace_attention(self, x: Tensor, weight: Tensor) -> Tensor:
        """Where positions look, through the windows and then the grids.

        The arguments and the result are those of
        :meth:`CrissCrossAttention.trace_attention`, but that zeros which take
        part (``padding='attend'``) get a share.
        """
        check_map(self, x)
        check_weight(x, weight)
        return self._in_bins(self._trace, x, weight)

    @property
    def trace_note(self) -> str:
        """What one has to know to read a map of :meth:`trace_attention`."""
        note = f'{type(self).__name__}:'
        if len(self.spans) > 1:
            ways = dict(
                long='far ones, one in each window', short='its own window'
            )
            first, second = (ways[span] for span in self.spans[::-1])
            note += (
                ' a map goes through both halves of the attention. From the '
                f'pixel it reaches {first}, from each cell of these {second}.'
            )
        if self.options['padding'] == 'attend':
            rows, columns = self.partition
            note += (
                f' Where {rows} x {columns} windows do not divide the map, '
                'zeros beside it take part and have what a sum lacks to 100 %.'
            )
        return note if note[-1] != ':' else ''

    def _in_bins(self, run, *maps):
        """Call with the parts of maps as a batch; join what it returns."""
        if self.bins == 1:
            return run(*maps)
        pads = _pads(maps[0], (self.bins, self.bins))
        parts = run(*(_split(_pad(x, pads), self.bins) for x in maps))
        return cut(_join(parts, self.bins), pads)

    def _zeros(self, x):
        """Zeros beside the map, before the projections."""
        if self.options['padding'] == 'mask':  # left to the operator
            return 0, 0, 0, 0
        return _pads(x, self.partition)

    def _attend(self, x):
        pads = self._zeros(x)
        # What the projections return are then positions' rows of channels.
        x = _pad(x, pads).contiguous(memory_format=torch.channels_last)
        for block, options in self._blocks():
            x = block(x, **options)
        return cut(x, pads)

    def _trace(self, x, weight):
        pads = self._zeros(x)
        x, weight = _pad(x, pads), _pad(weight, pads)
        with torch.no_grad():
            passed = []
            for block, options in self._blocks():
                passed.append((block, x, options))
                x = block(x, **options)
            for block, x, options in passed[::-1]:
                weight = block.trace(x, weight, **options)
        return cut(weight, pads)


def _pads(x, sides):
    """What fills a map up to a multiple of the sides, as F.pad takes it."""
    vertical, horizontal = pads_of(x.shape[-2:], sides)
    return *horizontal, *vertical


def _pad(x, pads):
    return F.pad(x, pads) if is_traced() or any(pads) else x


def _split(x, bins):
    """(B, ..., H, W) to its parts, (B * bins * bins, ..., h, w)."""
    x = x.unflatten(-1, (bins, -1)).unflatten(-3, (bins, -1))
    return x.movedim((-4, -2), (1, 2)).flatten(0, 2)


def _join(x, bins):
    """Undo :func:`_split`."""
    x = x.unflatten(0, (-1, bins, bins)).movedim((1, 2), (-4, -2))
    return x.flatten(-2).flatten(-3, -2)
