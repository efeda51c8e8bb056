# Copyright (c) mmseg_attn contributors.
"""Head of ISANet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from ...layers.arguments import check_counts
from ...registry import MODELS
from .arguments import check_head

# Where the host has the blocks of its one partition: in the head itself.
_HOST = ('global_relation.', 'local_relation.')


@MODELS.register_module()
class ISAHead(BaseDecodeHead):
    """Head of ISANet: interlaced sparse self-attention beside its input.

    A drop-in for mmseg's head of this name: the same state dict, so that its
    published weights load with ``strict=True``, and the same output. (Norms
    that look at one sample alone, such as GN, differ within the attention:
    a sample is the picture here and each group of positions there.)

    With one partition the names in the state dict are the host's, not those
    of the modules: ``torch.func.functional_call`` takes
    ``dict(head.named_parameters())`` and the buffers, not the state dict.

    Args:
        isa_channels: Channels of queries and keys.
        down_factor: The partition, (of height, of width), or several of
            them, whose attentions work side by side, as in the official
            code; the head's input then passes a 1x1 conv as wide as all of
            their outputs.
        pyramid: The official code's combination with a pyramid: for each s
            of it, such as (1, 2, 3, 6), an attention within s x s parts of
            the map, whose partition is that of the head divided by the square
            root of s; all behind one more conv and beside the head's input.
        dilations: The official code's combination with atrous convolutions:
            the attention, behind one more conv, beside a 1x1 conv and a 3x3
            conv of each dilation, such as (12, 24, 36), all half as wide as
            the head.
        attention: Further arguments of
            :class:`mmseg_attn.layers.InterlacedSparseAttention`;
            ``output_norm=False`` is the form of 2019.
        classifier_bias: Whether the classifier has a bias: not in the
            official code with HRNet.
        kwargs: Further arguments of mmseg's ``BaseDecodeHead``.

    Interlaced Sparse Self-Attention, https://arxiv.org/abs/1907.12273.
    """

    def __init__(
        self,
        isa_channels: int,
        down_factor: Sequence[int] | Sequence[Sequence[int]] = (8, 8),
        *,
        pyramid: Sequence[int] = (),
        dilations: Sequence[int] = (),
        attention: dict | None = None,
        classifier_bias: bool = True,
        **kwargs: Any,
    ):
        name = type(self).__name__
        check_head(name, kwargs)
        check_counts(name, isa_channels=isa_channels)
        super().__init__(**kwargs)
        if not classifier_bias:
            self.conv_seg.bias = None
        places = _places(name, down_factor, pyramid, dilations)
        self.down_factor = down_factor
        cfgs = dict(
            conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )
        conv = partial(ConvModule, **cfgs)
        conv3x3 = partial(conv, self.channels, kernel_size=3)
        self.in_conv = conv(self.in_channels, self.channels, 3, padding=1)
        width = self.channels // 2 if dilations else self.channels
        self.attention_conv = None
        if pyramid or dilations:
            self.attention_conv = conv3x3(width, padding=1)
        layer = dict(
            type='mmseg_attn.InterlacedSparseAttention',
            in_channels=width,
            key_channels=isa_channels,
            **cfgs,
        )
        layer.update(attention or {})
        self.attentions = nn.ModuleList(
            MODELS.build({**layer, **place}) for place in places
        )
        self.convs = nn.ModuleList()
        total = beside = len(places) * width
        if pyramid:
            beside = self.in_channels
        elif dilations:
            self.convs.append(conv(self.channels, width, 1))
            for d in dilations:
                self.convs.append(conv3x3(width, padding=d, dilation=d))
            beside = len(self.convs) * width
        elif len(places) > 1:
            self.up_conv = conv(width, total, 1)
        self.out_conv = conv(total + beside, self.channels, 1)
        self._register_state_dict_hook(_to_host_names)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        first = f'{prefix}attentions.0.'
        for name in list(state_dict):
            own = name[len(prefix) :] if name.startswith(prefix) else ''
            if own.startswith(_HOST):
                state_dict[first + own] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _forward_feature(self, inputs) -> Tensor:
        inputs = self._transform_inputs(inputs)
        x = self.in_conv(inputs)
        # As the attention works and returns it: converted once, not thrice.
        x = x.contiguous(memory_format=torch.channels_last)
        source, beside = x, [x]
        if self.attention_conv is not None:
            source = self.attention_conv(x)
            beside = [conv(x) for conv in self.convs] or [inputs]
        elif len(self.attentions) > 1:
            beside = [self.up_conv(x)]
        attended = [attention(source) for attention in self.attentions]
        # In the host's order; the official code has x alone first.
        return self.out_conv(torch.cat([*attended, *beside], dim=1))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits of feature maps.

        Args:
            inputs: Feature maps of the backbone, (B, C, H, W) each.

        Returns:
            (B, num_classes, H, W).
        """
        return self.cls_seg(self._forward_feature(inputs))


def _to_host_names(head, state_dict, prefix, local_metadata):
    first = f'{prefix}attentions.0.'
    for name in [k for k in state_dict if k.startswith(first)]:
        state_dict[prefix + name[len(first) :]] = state_dict.pop(name)


def _places(name, down_factor, pyramid, dilations):
    """Options of each attention: its partition, and parts of the map."""
    if not isinstance(down_factor, Sequence) or not down_factor:
        raise ValueError(
            'down_factor must be a partition such as (8, 8), or several, '
            f'got {down_factor!r}'
        )
    for key, values in (('pyramid', pyramid), ('dilations', dilations)):
        if not isinstance(values, Sequence):
            raise ValueError(
                f'{name}: {key} must be several whole numbers, or none as (), '
                f'got {values!r}'
            )
        for value in values:
            check_counts(name, **{key: value})
    several = isinstance(down_factor[0], Sequence)
    if not pyramid:
        partitions = down_factor if several else [down_factor]
        return [dict(partition=p) for p in partitions]
    if dilations or several:
        raise ValueError(
            f'{name}: pyramid takes one down_factor and no dilations, got '
            f'down_factor={down_factor} and dilations={dilations}'
        )
    return [
        dict(
            partition=[math.ceil(p / math.sqrt(s)) for p in down_factor],
            bins=s,
        )
        for s in pyramid
    ]
