# Copyright (c) mmseg_attn contributors.
"""A fully convolutional head around any attention layer."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import torch
from mmengine.model import Sequential
from mmseg.models.decode_heads import FCNHead
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ...layers.arguments import check_counts
from ...registry import MODELS
from .arguments import check_head


@MODELS.register_module()
class AttentionHead(FCNHead):
    """Fully convolutional head with any attention layer between its convs.

    3x3 conv, the attention layer ``recurrence`` times with shared weights,
    3x3 conv, concatenation with the input, 3x3 conv, classifier.

    Args:
        attention: Config of a layer on (B, channels, H, W) maps, to which
            ``in_channels`` is added; or several of them, which follow one
            another and count as one layer.
        recurrence: How often the one layer is applied; 0 leaves it out.
        loss_ccl: Config of a loss on an embedding of the attention's output,
            called with (features, label, ignore_index=...), such as
            ``mmseg_attn.CategoryConsistentLoss``. None means no such loss.
        ccl_channels: Channels of the embedding, a 1x1 conv that serves the
            loss alone. The paper says 16; whether that is the channels or
            the ratio is not certain.
        kwargs: Further arguments of mmseg's ``FCNHead`` but for num_convs,
            which is 2.

    Raises:
        ValueError: ``recurrence`` is negative, the layer has another number
            of output channels than the head, or an argument cannot be meant.
        KeyError: No layer is registered under the type in ``attention``.
    """

    # Name of the layer's parameters, for heads whose weights are published.
    attention_name = 'attention'

    def __init__(
        self,
        attention: dict | Sequence[dict],
        recurrence: int = 1,
        loss_ccl: dict | None = None,
        ccl_channels: int = 16,
        **kwargs: Any,
    ):
        name = type(self).__name__
        check_head(name, kwargs)
        check_counts(name, ccl_channels=ccl_channels)
        if type(recurrence) is not int or recurrence < 0:
            raise ValueError(
                f'{name}: recurrence must be a whole number of at least 0, '
                f'got {recurrence!r}'
            )
        super().__init__(num_convs=2, **kwargs)
        self.recurrence = recurrence
        several = isinstance(attention, Sequence)
        layers = [
            self._build(cfg) for cfg in (attention if several else [attention])
        ]
        layer = Sequential(*layers) if several else layers[0]
        if not recurrence:
            # Distributed training waits for each parameter's gradient.
            layer.requires_grad_(False)
        self.add_module(self.attention_name, layer)
        self.loss_ccl = MODELS.build(loss_ccl) if loss_ccl else None
        if loss_ccl:
            self.ccl_conv = nn.Conv2d(self.channels, ccl_channels, 1)

    def _build(self, attention):
        layer = MODELS.build({**attention, 'in_channels': self.channels})
        width = getattr(layer, 'out_channels', self.channels)
        if width != self.channels:
            raise ValueError(
                f'{type(layer).__name__} has {width} output channels, '
                f'expected {self.channels}, the channels of the head: set '
                'both alike'
            )
        return layer

    def map_and_attention(
        self, inputs: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The map that the head takes, and the attention's output on it."""
        x = self._transform_inputs(inputs)
        layer = getattr(self, self.attention_name)
        attended = self.convs[0](x)
        for _ in range(self.recurrence):
            attended = layer(attended)
        return x, attended

    def fuse(self, x: Tensor, attended: Tensor) -> Tensor:
        """Features of the two results of :meth:`map_and_attention`."""
        feats = self.convs[1](attended)
        if self.concat_input:
            feats = self.conv_cat(torch.cat([x, feats], dim=1))
        return feats

    def _forward_feature(self, inputs) -> Tensor:
        return self.fuse(*self.map_and_attention(inputs))

    def loss(
        self,
        inputs: Sequence[Tensor],
        batch_data_samples: list[SegDataSample],
        train_cfg: dict | None,
    ) -> dict[str, Tensor]:
        """Losses of the logits and, if configured, of the embedding.

        Args:
            inputs: Feature maps of the backbone, (B, C, H, W) each.
            batch_data_samples: Samples with ``gt_sem_seg``.
            train_cfg: Not used.

        Returns:
            The losses by name, and the accuracy.
        """
        x, attended = self.map_and_attention(inputs)
        logits = self.cls_seg(self.fuse(x, attended))
        losses = self.loss_by_feat(logits, batch_data_samples)
        label = self._stack_batch_gt(batch_data_samples)
        return losses | self.consistency_loss(attended, label, losses)

    def consistency_loss(
        self, attended: Tensor, label: Tensor, others: Container[str]
    ) -> dict[str, Tensor]:
        """The loss on the embedding by its name, if there is one.

        Args:
            attended: Output of the attention, (B, channels, H, W).
            label: Labels of the pixels.
            others: Names of the head's other losses.

        Returns:
            The loss by its name, or an empty dict.

        Raises:
            ValueError: Another loss has the same name.
        """
        if self.loss_ccl is None:
            return {}
        name = self.loss_ccl.loss_name
        if name in others:
            raise ValueError(
                f'loss_ccl is named {name!r}, as another loss of the head is: '
                'give it a loss_name of its own'
            )
        embedding = self.ccl_conv(attended)
        loss = self.loss_ccl(embedding, label, ignore_index=self.ignore_index)
        return {name: loss}
