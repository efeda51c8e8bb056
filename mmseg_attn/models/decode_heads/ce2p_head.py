# Copyright (c) mmseg_attn contributors.
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor, nn

from ...registry import MODELS


@MODELS.register_module()
class CE2PHead(BaseDecodeHead):
    """Human parsing head: context, a high-resolution decoder and edges.

    CE2P with its pyramid pooling replaced by recurrent attention, as CCNet
    is used on LIP: the context of the last stage joins the first stage
    (``seg1``), an edge branch reads the first three stages, and both together
    give the parsing (``seg2``, the one returned). Trained with a loss on
    seg1, seg2 and the edges between the labels.

    The paper says that the attention takes the place of the pyramid pooling,
    and no more. Assumed here: the module put in is that of CCNet's code,
    3x3 conv, attention ``recurrence`` times, 3x3 conv, concatenation with
    its input, 3x3 conv; seg1 keeps its loss; all losses weigh the same.

    Args:
        in_channels (Sequence[int]): Channels of the four backbone stages.
            Default: (256, 512, 1024, 2048).
        channels (int): Channels of the decoder and of the edge branch.
            Default: 256.
        attention (dict): Config of the attention layer; ``in_channels`` is
            added. Default: dict(type='mmseg_attn.CrissCrossAttention').
        recurrence (int): How often the one layer is applied. Default: 2.
        context_channels (int): Channels of the context. Default: 512.
        skip_channels (int): Channels taken from the first stage. Default: 48.
        edge_width (int): Width in pixels of the labelled edges, odd.
            Default: 3.
        edge_weight (float): Weight of the edge loss. Default: 1.0.
        loss_ccl (dict, optional): Config of a loss on the attention's output,
            called with (features, label, ignore_index=...), such as
            ``mmseg_attn.CategoryConsistentLoss``. Default: None.
        ccl_channels (int): Channels of the embedding it sees. Default: 16.
        in_index (Sequence[int]): The stages. Default: (0, 1, 2, 3).
        **kwargs: Arguments of ``BaseDecodeHead``.

    Returns of ``forward``: logits (B, num_classes, H, W) of seg2 at the size
    of the first stage.

    Raises:
        ValueError: If there are not four stages, ``recurrence`` is not
            positive or ``edge_width`` is not odd.

    Source: CE2P, https://arxiv.org/abs/1809.05996; CCNet,
    https://arxiv.org/abs/1811.11721, section 4.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (256, 512, 1024, 2048),
        channels: int = 256,
        *,
        attention: dict | None = None,
        recurrence: int = 2,
        context_channels: int = 512,
        skip_channels: int = 48,
        edge_width: int = 3,
        edge_weight: float = 1.0,
        loss_ccl: dict | None = None,
        ccl_channels: int = 16,
        in_index: Sequence[int] = (0, 1, 2, 3),
        **kwargs,
    ) -> None:
        if len(in_channels) != 4 or len(in_index) != 4:
            raise ValueError(
                'CE2PHead takes four stages, got in_channels='
                f'{in_channels} and in_index={in_index}'
            )
        if recurrence < 1:
            raise ValueError(f'recurrence must be positive, got {recurrence}')
        if edge_width % 2 != 1:
            raise ValueError(f'edge_width must be odd, got {edge_width}')
        kwargs.setdefault(
            'init_cfg',
            {
                'type': 'Normal',
                'std': 0.01,
                'override': [{'name': 'conv_seg'}, {'name': 'conv_seg1'}],
            },
        )
        super().__init__(
            list(in_channels),
            channels,
            in_index=list(in_index),
            input_transform='multiple_select',
            **kwargs,
        )
        self.recurrence = recurrence
        self.edge_width = edge_width
        self.edge_weight = edge_weight
        conv = partial(
            ConvModule,
            conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg,
            act_cfg=self.act_cfg,
        )
        first, _, _, last = in_channels

        self.reduce = conv(last, context_channels, 3, padding=1)
        self.attention = MODELS.build(
            {
                'type': 'mmseg_attn.CrissCrossAttention',
                **(attention or {}),
                'in_channels': context_channels,
            }
        )
        self.refine = conv(context_channels, context_channels, 3, padding=1)
        self.fuse = conv(
            last + context_channels, context_channels, 3, padding=1
        )

        self.context_conv = conv(context_channels, channels, 1)
        self.skip_conv = conv(first, skip_channels, 1)
        self.decoder = nn.Sequential(
            conv(channels + skip_channels, channels, 1),
            conv(channels, channels, 1),
        )
        self.conv_seg1 = nn.Conv2d(channels, self.out_channels, 1)

        self.edge_convs = nn.ModuleList(
            conv(width, channels, 1) for width in in_channels[:3]
        )
        self.conv_side_edge = nn.Conv2d(channels, 2, 3, padding=1)
        self.conv_edge = nn.Conv2d(6, 2, 1)

        self.final_conv = conv(4 * channels, channels, 1)

        self.loss_ccl = loss_ccl and MODELS.build(loss_ccl)
        if loss_ccl:
            self.ccl_conv = nn.Conv2d(context_channels, ccl_channels, 1)

    def _context(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Context of the last stage, and the attention's own output."""
        attended = self.reduce(x)
        for _ in range(self.recurrence):
            attended = self.attention(attended)
        return self.fuse(torch.cat([x, self.refine(attended)], 1)), attended

    def _resize(self, x: Tensor, size: torch.Size) -> Tensor:
        return resize(
            x, size, mode='bilinear', align_corners=self.align_corners
        )

    def _forward_feature(
        self, inputs: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
        """Features before each predictor.

        Returns:
            tuple: Of seg2 (B, channels, H, W) and of seg1, the edge features
            of the three stages (each at its own size), and the attention's
            output (B, context_channels, h, w).
        """
        stages = self._transform_inputs(inputs)
        size = stages[0].shape[2:]
        context, attended = self._context(stages[3])
        decoded = self.decoder(
            torch.cat(
                [
                    self._resize(self.context_conv(context), size),
                    self.skip_conv(stages[0]),
                ],
                1,
            )
        )
        edges = [
            conv(x)
            for conv, x in zip(self.edge_convs, stages[:3], strict=True)
        ]
        fused = self.final_conv(
            torch.cat([decoded, *(self._resize(x, size) for x in edges)], 1)
        )
        return fused, decoded, edges, attended

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        return self.cls_seg(self._forward_feature(inputs)[0])

    def loss(self, inputs, batch_data_samples, train_cfg) -> dict:
        """Losses of seg2, seg1, the edges and, if any, of the embedding.

        Args:
            inputs (Sequence[Tensor]): The backbone's feature maps.
            batch_data_samples (list[SegDataSample]): With ``gt_sem_seg``.
            train_cfg (dict): Not used.

        Returns:
            dict[str, Tensor]: The losses, and the accuracy of seg2.
        """
        fused, decoded, edges, attended = self._forward_feature(inputs)
        losses = self.loss_by_feat(self.cls_seg(fused), batch_data_samples)
        for name, loss in self.loss_by_feat(
            self.conv_seg1(decoded), batch_data_samples
        ).items():
            losses[f'{name}_seg1'] = loss

        label = self._stack_batch_gt(batch_data_samples)
        size = decoded.shape[2:]
        logits = self.conv_edge(
            torch.cat(
                [self._resize(self.conv_side_edge(x), size) for x in edges], 1
            )
        )
        losses['loss_edge'] = self.edge_weight * balanced_cross_entropy(
            self._resize(logits, label.shape[2:]),
            edge_labels(label.squeeze(1), self.edge_width, self.ignore_index),
            self.ignore_index,
        )
        if self.loss_ccl:
            losses[self.loss_ccl.loss_name] = self.loss_ccl(
                self.ccl_conv(attended), label, ignore_index=self.ignore_index
            )
        return losses


def edge_labels(
    label: Tensor, width: int = 3, ignore_index: int = 255
) -> Tensor:
    """Mark the pixels along the borders between two labels.

    Args:
        label (Tensor): Labels (B, H, W).
        width (int): Width of the marking in pixels, odd. Default: 3.
        ignore_index (int): Label without a border. Default: 255.

    Returns:
        Tensor: (B, H, W) int64, 1 on a border, 0 elsewhere, ``ignore_index``
        where the label is.

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
    return edge.long().masked_fill(label == ignore_index, ignore_index)


def balanced_cross_entropy(
    logits: Tensor, edge: Tensor, ignore_index: int = 255
) -> Tensor:
    """Cross entropy in which edge and no edge count the same in a batch.

    Args:
        logits (Tensor): (B, 2, H, W).
        edge (Tensor): (B, H, W), 1 on an edge, 0 elsewhere.
        ignore_index (int): Value of ``edge`` left out. Default: 255.

    Returns:
        Tensor: The loss; 0 if the batch does not hold both kinds.

    Source: CE2P's code, criterion of the edge branch: each kind is weighted
    by the share of the other.
    """
    counts = torch.stack([(edge == 1).sum(), (edge == 0).sum()]).float()
    weight = counts / counts.sum().clamp(min=1)
    loss = F.cross_entropy(
        logits.float(),
        edge,
        weight=weight,
        ignore_index=ignore_index,
        reduction='sum',
    )
    # The sum of the weights, which cannot be below 1 but when it is 0.
    return loss / (weight * counts.flip(0)).sum().clamp(min=1)
