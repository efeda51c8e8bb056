# Copyright (c) mmseg_attn contributors.
"""Head of CAANet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmengine.model import Sequential
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
            :class:`mmseg_attn.layers.ChannelizedAxialAttention`;
            ``channel_attention=False`` leaves axial attention.
        num_attentions: How many attentions follow one another, each with
            weights of its own.
        image_level: Whether the image-level branch is there.
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
        num_attentions: int = 1,
        image_level: bool = True,
        **kwargs: Any,
    ):
        name = type(self).__name__
        options = dict(kwargs, in_channels=in_channels, channels=channels)
        check_head(name, options)
        check_counts(
            name,
            attention_channels=attention_channels,
            num_attentions=num_attentions,
        )
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
        layer.update(attention or {})
        layers, between = [], width
        for _ in range(num_attentions):
            layers.append(MODELS.build({**layer, 'in_channels': between}))
            between = getattr(layers[-1], 'out_channels', between)
        # Without a number in the names of one alone.
        one = num_attentions == 1
        self.attention = layers[0] if one else Sequential(*layers)
        self.end_conv = conv(between, width, 1)
        self.image_level_conv = None
        if image_level:
            self.image_level_conv = conv(self.in_channels, width, 1)
        self.seg_head_conv = conv((1 + image_level) * width, channels, 1)
        if self.dropout is not None:
            self.dropout = nn.Dropout(self.dropout_ratio)

    def _forward_feature(self, inputs) -> Tensor:
        x = self._transform_inputs(inputs)
        attended = self.end_conv(self.attention(self.entry_conv(x)))
        if self.image_level_conv is not None:
            image = self._image_level(x.mean((2, 3), keepdim=True))
            attended = torch.cat([attended, image.expand_as(attended)], dim=1)
        return self.seg_head_conv(attended)

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
