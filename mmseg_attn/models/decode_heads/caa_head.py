# Copyright (c) mmseg_attn contributors.
"""Head of CAANet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from ...errors import UserError
from ...hosts import HostError
from ...layers.arguments import check_counts
from ...registry import MODELS
from .arguments import check_head


@MODELS.register_module()
class CAAHead(BaseDecodeHead):
    """Head of CAANet: channelized axial attention and an image-level branch.

    3x3 conv, attention along columns and rows, 1x1 conv; beside it the mean
    of the backbone's map through a 1x1 conv, broadcast; both concatenated,
    1x1 conv, dropout, classifier.

    The image-level branch has one value per picture and channel, of which
    BN makes no statistics in training where a process has one picture: take
    two or more per process, SyncBN over several processes, or GN.

    Args:
        in_channels: Channels of the backbone's last stage.
        channels: Channels before the classifier.
        attention_channels: Channels of the attention and of both branches.
        attention: Further arguments of
            :class:`mmseg_attn.layers.ChannelizedAxialAttention`.
        kwargs: Further arguments of mmseg's ``BaseDecodeHead``. The dropout
            is of single elements, as in the official code.

    Channelized Axial Attention, https://arxiv.org/abs/2101.07434, as in
    the official code.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 256,
        *,
        attention_channels: int = 512,
        attention: dict | None = None,
        **kwargs: Any,
    ):
        name = type(self).__name__
        options = dict(kwargs, in_channels=in_channels, channels=channels)
        check_head(name, options)
        check_counts(name, attention_channels=attention_channels)
        super().__init__(**options)
        if self.input_transform == 'multiple_select':
            raise ValueError(
                f'{name} takes one map, got in_index='
                f'{self.in_index}: leave out input_transform, or use '
                "'resize_concat'"
            )
        cfgs = dict(
            conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )
        conv = partial(ConvModule, **cfgs)
        width = attention_channels
        self.entry_conv = conv(self.in_channels, width, 3, padding=1)
        layer = dict(
            type='mmseg_attn.ChannelizedAxialAttention', channels=width, **cfgs
        )
        layer.update(attention or {}, in_channels=width)
        self.attention = MODELS.build(layer)
        out_channels = getattr(self.attention, 'out_channels', width)
        self.end_conv = conv(out_channels, width, 1)
        self.image_level_conv = conv(self.in_channels, width, 1)
        self.seg_head_conv = conv(2 * width, channels, 1)
        if self.dropout is not None:
            self.dropout = nn.Dropout(self.dropout_ratio)

    def _forward_feature(self, inputs) -> Tensor:
        x = self._transform_inputs(inputs)
        attended = self.end_conv(self.attention(self.entry_conv(x)))
        image = self._image_level(x.mean((2, 3), keepdim=True))
        both = [attended, image.expand_as(attended)]
        return self.seg_head_conv(torch.cat(both, dim=1))

    def _image_level(self, mean):
        try:
            return self.image_level_conv(mean)
        except ValueError as error:
            if not HostError.ONE_VALUE.found_in(error):
                raise
            raise UserError(
                f'{type(self).__name__} cannot train on one picture per '
                f'process with {self.norm_cfg["type"]}: its image-level '
                'branch has one value per channel then. Take a batch_size '
                'of 2 or more per process, SyncBN over several processes, '
                "or norm_cfg=dict(type='GN', num_groups=32)."
            ) from error

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits of feature maps.

        Args:
            inputs: Feature maps of the backbone, (B, C, H, W) each.

        Returns:
            (B, num_classes, H, W).

        Raises:
            UserError: It trains with BN on one picture.
        """
        return self.cls_seg(self._forward_feature(inputs))
