# Copyright (c) mmseg_attn contributors.
"""Head for human parsing, CE2P with attention."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmseg.models.utils import resize
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from ...layers.arguments import check_counts, check_numbers
from ...registry import MODELS
from .arguments import check_head
from .attention_head import AttentionHead


@MODELS.register_module()
class CE2PHead(AttentionHead):
    """Human parsing head: context, a high-resolution decoder and edges.

    CE2P with its pyramid pooling replaced by recurrent attention, as CCNet
    is used on LIP. The context of the last stage, made as in
    :class:`AttentionHead`, joins the first stage (seg1); an edge branch reads
    the first three stages; both together give the parsing (seg2). Trained
    with a loss on seg1, on seg2 and on the edges between the labels.

    The paper says that the attention takes the place of the pyramid pooling,
    and no more. Assumed here: the module put in is that of CCNet's code,
    convolutions and concatenation included; seg1 keeps its loss; all losses
    weigh the same; an embedding of the attention's output has the category
    consistent loss.

    Args:
        in_channels: Channels of the four backbone stages.
        channels: Channels of the context.
        decoder_channels: Channels of the decoder and of the edge branch.
        skip_channels: Channels taken from the first stage.
        edge_width: Width in pixels of the labelled edges, odd.
        edge_weight: Weight of the edge loss.
        in_index: The four stages.
        attention: Config of the attention, as for :class:`AttentionHead`.
            None means criss-cross attention.
        recurrence: How often the attention is applied.
        kwargs: Further arguments of :class:`AttentionHead`; ``loss_ccl``
            among them.

    Raises:
        ValueError: There are not four stages, or ``edge_width`` is not odd.

    CE2P, https://arxiv.org/abs/1809.05996; CCNet,
    https://arxiv.org/abs/1811.11721, section 4.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (256, 512, 1024, 2048),
        channels: int = 512,
        *,
        decoder_channels: int = 256,
        skip_channels: int = 48,
        edge_width: int = 3,
        edge_weight: float = 1.0,
        in_index: Sequence[int] = (0, 1, 2, 3),
        attention: dict | None = None,
        recurrence: int = 2,
        **kwargs: Any,
    ):
        name = type(self).__name__
        check_head(name, dict(in_channels=in_channels, in_index=in_index))
        check_counts(
            name,
            decoder_channels=decoder_channels,
            skip_channels=skip_channels,
            edge_width=edge_width,
        )
        check_numbers(name, 0, edge_weight=edge_weight)
        stages = in_channels, in_index
        if any(isinstance(s, int) or len(s) != 4 for s in stages):
            raise ValueError(
                f'{name} takes four stages, got in_channels='
                f'{in_channels} and in_index={in_index}'
            )
        if edge_width % 2 != 1:
            raise ValueError(
                f'{name}: edge_width must be odd, got {edge_width}'
            )
        kwargs.setdefault(
            'init_cfg',
            {
                'type': 'Normal',
                'std': 0.01,
                'override': [{'name': 'conv_seg'}, {'name': 'conv_seg1'}],
            },
        )
        super().__init__(
            attention={
                'type': 'mmseg_attn.CrissCrossAttention',
                **(attention or {}),
            },
            recurrence=recurrence,
            in_channels=in_channels[3],
            in_index=in_index[3],
            channels=channels,
            **kwargs,
        )
        self.early_index = in_index[:3]
        self.edge_width = edge_width
        self.edge_weight = edge_weight
        conv = partial(
            ConvModule,
            kernel_size=1,
            conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )
        width = decoder_channels
        self.context_conv = conv(channels, width)
        self.skip_conv = conv(in_channels[0], skip_channels)
        self.decoder = nn.Sequential(
            conv(width + skip_channels, width), conv(width, width)
        )
        self.conv_seg1 = nn.Conv2d(width, self.out_channels, 1)
        self.edge_convs = nn.ModuleList(
            conv(stage_channels, width) for stage_channels in in_channels[:3]
        )
        self.conv_side_edge = nn.Conv2d(width, 2, 3, padding=1)
        self.conv_edge = nn.Conv2d(6, 2, 1)
        self.final_conv = conv(4 * width, width)
        # In place of the classifier of the context.
        self.conv_seg = nn.Conv2d(width, self.out_channels, 1)

    def _concatenate(self, maps: Sequence[Tensor], size: torch.Size) -> Tensor:
        return torch.cat([self._resize(x, size) for x in maps], 1)

    def _resize(self, x: Tensor, size: torch.Size) -> Tensor:
        return resize(
            x, size, mode='bilinear', align_corners=self.align_corners
        )

    def _decode(
        self, inputs: Sequence[Tensor], context: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Features of seg2, of seg1, and of the edges at three stages."""
        early = [inputs[i] for i in self.early_index]
        size = early[0].shape[2:]
        decoded = self.decoder(
            self._concatenate(
                [self.context_conv(context), self.skip_conv(early[0])], size
            )
        )
        edges = [
            conv(x) for conv, x in zip(self.edge_convs, early, strict=True)
        ]
        fused = self.final_conv(self._concatenate([decoded, *edges], size))
        return fused, decoded, edges

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        context = super()._forward_feature(inputs)
        return self._decode(inputs, context)[0]

    def loss(
        self,
        inputs: Sequence[Tensor],
        batch_data_samples: list[SegDataSample],
        train_cfg: dict | None,
    ) -> dict[str, Tensor]:
        """Losses of seg2, seg1, the edges and, if any, of the embedding.

        Args:
            inputs: Feature maps of the backbone, (B, C, H, W) each.
            batch_data_samples: Samples with ``gt_sem_seg``.
            train_cfg: Not used.

        Returns:
            The losses by name, and the accuracies.
        """
        x, attended = self.map_and_attention(inputs)
        fused, decoded, edges = self._decode(inputs, self.fuse(x, attended))
        losses = self.loss_by_feat(self.cls_seg(fused), batch_data_samples)
        for name, loss in self.loss_by_feat(
            self.conv_seg1(decoded), batch_data_samples
        ).items():
            losses[f'{name}_seg1'] = loss

        label = self._stack_batch_gt(batch_data_samples)
        sides = [self.conv_side_edge(edge) for edge in edges]
        logits = self.conv_edge(self._concatenate(sides, decoded.shape[2:]))
        losses['loss_edge'] = self.edge_weight * balanced_cross_entropy(
            self._resize(logits, label.shape[2:]),
            edge_labels(label.squeeze(1), self.edge_width, self.ignore_index),
        )
        return losses | self.consistency_loss(attended, label, losses)


def edge_labels(
    label: Tensor, width: int = 3, ignore_index: int = 255
) -> Tensor:
    """Mark the pixels along the borders between two labels.

    Args:
        label: Labels (B, H, W).
        width: Width of the marking in pixels, odd.
        ignore_index: Label without a border.

    Returns:
        (B, H, W) int64, 1 on a border, 0 elsewhere, also where the label is
        ``ignore_index``, such as in padding.

    Source: CE2P, https://arxiv.org/abs/1809.05996; its code marks one side of
    each border, then dilates, and so does this.
    """
    edge = torch.zeros_like(label, dtype=torch.bool)

    def mark(here: tuple, there: tuple) -> None:
        a, b = label[here], label[there]
        edge[here] |= (a != b) & (a != ignore_index) & (b != ignore_index)

    tail, body, full = slice(1, None), slice(None, -1), slice(None)
    mark((full, tail, full), (full, body, full))
    mark((full, full, body), (full, full, tail))
    mark((full, body, body), (full, tail, tail))
    mark((full, body, tail), (full, tail, body))
    edge = F.max_pool2d(edge.float(), width, stride=1, padding=width // 2)
    return edge.long()


def balanced_cross_entropy(logits: Tensor, edge: Tensor) -> Tensor:
    """Cross entropy in which edge and no edge count the same in a batch.

    Args:
        logits: (B, 2, H, W).
        edge: (B, H, W), 1 on an edge, 0 elsewhere.

    Returns:
        The loss; 0 if the batch does not hold both kinds.

    Source: CE2P's code, criterion of the edge branch: each kind is weighted
    by the share of the other.
    """
    counts = torch.stack([(edge == 1).sum(), (edge == 0).sum()]).float()
    weight = counts / counts.sum().clamp(min=1)
    loss = F.cross_entropy(
        logits.float(), edge, weight=weight, reduction='sum'
    )
    # The sum of the weights, which cannot be below 1 but when it is 0.
    return loss / (weight * counts.flip(0)).sum().clamp(min=1)
