# Copyright (c) mmseg_attn contributors.
"""Head of SANet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmengine.model import Sequential
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ...layers.arguments import check_counts, given
from ...ops.core.checks import check_choice
from ...registry import MODELS
from .arguments import check_head

TEST_OUTPUTS = ('mask', 'dense', 'mask+dense')


@MODELS.register_module()
class SqueezeAttentionHead(BaseDecodeHead):
    """Head of SANet: squeeze-and-attention on each stage, three losses.

    The attentions of all stages, concatenated, give the mask and, pooled,
    which classes the picture holds. The dense prediction is that of an FCN
    head on the last stage plus that of the last attention.

    The paper's text, as far as known here, leaves open: the reduction
    before each attention (here a 1x1 conv), its width, the grid to which all
    are resized (``grid``) and which output is the prediction.

    Args:
        in_channels: Channels of the stages.
        in_index: The stages.
        channels: Width of each attention.
        grid: Place in ``in_index`` of the stage to whose height and width the
            attentions are resized; the last by default, which suits
            backbones of stride 8.
        fcn_channels: Channels of the FCN head. None means a quarter of those
            of the last stage.
        attention: Further arguments of
            :class:`mmseg_attn.layers.SqueezeAttention`.
        loss_dense: Config of the loss of the dense prediction, weight 0.8 in
            the paper. None means cross entropy.
        loss_presence: Config of the loss of the classes' presence, weight 0.2
            in the paper. None means
            :class:`mmseg_attn.models.losses.ClassPresenceLoss`.
        test_output: What ``forward`` returns: ``'mask'``, ``'dense'`` or the
            sum of both, ``'mask+dense'``.
        kwargs: Further arguments of mmseg's ``BaseDecodeHead``;
            ``loss_decode`` is the mask's loss, weight 1 in the paper.

    Squeeze-and-Attention Networks, https://arxiv.org/abs/1909.03402;
    the losses are equations 6 to 9.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (256, 512, 1024, 2048),
        in_index: Sequence[int] = (0, 1, 2, 3),
        channels: int = 128,
        *,
        grid: int = -1,
        fcn_channels: int | None = None,
        attention: dict | None = None,
        loss_dense: dict | None = None,
        loss_presence: dict | None = None,
        test_output: str = 'mask',
        **kwargs: Any,
    ):
        name = type(self).__name__
        check_choice(name, 'test_output', test_output, TEST_OUTPUTS)
        check_counts(name, **given(fcn_channels=fcn_channels))
        widths = dict(in_channels=in_channels, channels=channels)
        check_head(name, dict(kwargs, in_index=in_index, **widths))
        if isinstance(in_channels, int) or isinstance(in_index, int):
            raise ValueError(
                f'{name} takes several stages, got in_channels={in_channels} '
                f'and in_index={in_index}: give lists'
            )
        stages = range(-len(in_index), len(in_index))
        if type(grid) is not int or grid not in stages:
            raise ValueError(
                f'{name} takes {len(in_index)} stages, got grid={grid!r}: '
                f'give the place of one of in_index={list(in_index)}'
            )
        super().__init__(
            in_channels=list(in_channels),
            in_index=list(in_index),
            # Of the classifier's input.
            channels=channels * len(in_channels),
            input_transform='multiple_select',
            **kwargs,
        )
        self.test_output, self.grid = test_output, grid
        cfgs = dict(
            conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )
        conv = partial(ConvModule, **cfgs)
        layer = dict(type='mmseg_attn.SqueezeAttention', **cfgs)
        layer.update(attention or {}, in_channels=channels)
        self.reductions = nn.ModuleList(
            conv(width, channels, 1) for width in in_channels
        )
        self.attentions = nn.ModuleList(
            MODELS.build(layer) for _ in in_channels
        )
        width = fcn_channels or max(1, in_channels[-1] // 4)
        self.fcn = Sequential(
            conv(in_channels[-1], width, 3, padding=1),
            nn.Dropout2d(self.dropout_ratio),
            nn.Conv2d(width, self.out_channels, 1),
        )
        self.attention_seg = nn.Conv2d(channels, self.out_channels, 1)
        default = dict(
            type='CrossEntropyLoss',
            use_sigmoid=self.out_channels == 1,
            avg_non_ignore=True,
            loss_weight=0.8,
        )
        # Each loss has a line of its own in the log.
        loss_dense = {**(loss_dense or default), 'loss_name': 'loss_dense'}
        self.loss_dense = MODELS.build(loss_dense)
        loss_presence = loss_presence or dict(
            type='mmseg_attn.ClassPresenceLoss'
        )
        self.loss_presence = MODELS.build(loss_presence)
        self.presence = nn.Linear(self.channels, self.num_classes)

    def _attend(self, inputs) -> tuple[Tensor, Tensor, Tensor]:
        """Features of all stages, of the last attention, the last stage."""
        stages = self._transform_inputs(inputs)
        attended = [
            attention(reduction(x))
            for x, reduction, attention in zip(
                stages, self.reductions, self.attentions, strict=True
            )
        ]
        size = stages[self.grid].shape[2:]
        features = torch.cat([self._resized(x, size) for x in attended], 1)
        return features, attended[-1], stages[-1]

    def _resized(self, x, size) -> Tensor:
        return resize(
            x, size, mode='bilinear', align_corners=self.align_corners
        )

    def _dense(self, attended, stage) -> Tensor:
        return self.fcn(stage) + self.attention_seg(attended)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits of feature maps.

        Args:
            inputs: Feature maps of the backbone, (B, C, H, W) each.

        Returns:
            (B, classes, H, W), on the grid of the stage that ``grid`` names,
            ``'dense'`` on that of the last stage.
        """
        features, *last = self._attend(inputs)
        if self.test_output == 'mask':
            return self.cls_seg(features)
        if self.test_output == 'dense':
            return self._dense(*last)
        mask = self.cls_seg(features)
        return mask + self._resized(self._dense(*last), mask.shape[2:])

    def loss(
        self,
        inputs: Sequence[Tensor],
        batch_data_samples: list[SegDataSample],
        train_cfg: dict | None,
    ) -> dict[str, Tensor]:
        """Losses of the mask, of the dense prediction and of the presence.

        Args:
            inputs: Feature maps of the backbone, (B, C, H, W) each.
            batch_data_samples: Samples with ``gt_sem_seg``.
            train_cfg: Not used.

        Returns:
            The losses by name, and the accuracy of the mask.
        """
        features, *last = self._attend(inputs)
        losses = self.loss_by_feat(self.cls_seg(features), batch_data_samples)
        label = self._stack_batch_gt(batch_data_samples).squeeze(1)
        dense = self._resized(self._dense(*last), label.shape[1:])
        losses['loss_dense'] = self.loss_dense(
            dense, label, ignore_index=self.ignore_index
        )
        logits = self.presence(features.mean((2, 3)))
        losses[self.loss_presence.loss_name] = self.loss_presence(
            logits, label, ignore_index=self.ignore_index
        )
        return losses
