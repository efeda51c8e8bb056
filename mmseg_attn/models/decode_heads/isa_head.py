# Copyright (c) mmseg_attn contributors.
"""Head of ISANet."""

from __future__ import annotations

from collections.abc import Sequence
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
        attention: dict | None = None,
        classifier_bias: bool = True,
        **kwargs: Any,
    ):
        check_head(type(self).__name__, kwargs)
        check_counts(type(self).__name__, isa_channels=isa_channels)
        super().__init__(**kwargs)
        if not classifier_bias:
            self.conv_seg.bias = None
        if not isinstance(down_factor, Sequence) or not down_factor:
            raise ValueError(
                'down_factor must be a partition such as (8, 8), or several, '
                f'got {down_factor!r}'
            )
        several = isinstance(down_factor[0], Sequence)
        partitions = down_factor if several else [down_factor]
        self.down_factor = down_factor
        cfgs = dict(
            conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )
        width = self.channels
        self.in_conv = ConvModule(
            self.in_channels, width, 3, padding=1, **cfgs
        )
        layer = dict(
            type='mmseg_attn.InterlacedSparseAttention',
            in_channels=width,
            key_channels=isa_channels,
            **cfgs,
        )
        layer.update(attention or {})
        self.attentions = nn.ModuleList(
            MODELS.build({**layer, 'partition': p}) for p in partitions
        )
        total = len(partitions) * width
        if len(partitions) > 1:
            self.up_conv = ConvModule(width, total, 1, **cfgs)
        self.out_conv = ConvModule(2 * total, width, 1, **cfgs)
        self._register_state_dict_hook(_to_host_names)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        first = f'{prefix}attentions.0.'
        for name in list(state_dict):
            own = name[len(prefix) :] if name.startswith(prefix) else ''
            if own.startswith(_HOST):
                state_dict[first + own] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _forward_feature(self, inputs) -> Tensor:
        x = self.in_conv(self._transform_inputs(inputs))
        # As the attention works and returns it: converted once, not thrice.
        x = x.contiguous(memory_format=torch.channels_last)
        attended = [attention(x) for attention in self.attentions]
        if len(attended) > 1:
            x = self.up_conv(x)
        # In the host's order; the official code has x first.
        return self.out_conv(torch.cat([*attended, x], dim=1))

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
