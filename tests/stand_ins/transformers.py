# Copyright (c) mmseg_attn contributors.
"""SegFormer of Hugging Face, as docs/reuse.md calls it; its encoder is none
of transformers but a convolution a stage."""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class SegformerConfig:
    """What the page says of it."""

    num_labels: int
    depths: list[int]
    hidden_sizes: list[int]
    num_attention_heads: list[int]
    decoder_hidden_size: int


class DecodeHead(nn.Module):
    """Maps of all stages to logits, with the names of its modules."""

    def __init__(self, config: SegformerConfig):
        super().__init__()
        width = config.decoder_hidden_size
        self.linear_projections = nn.ModuleList(
            nn.Conv2d(size, width, 1) for size in config.hidden_sizes
        )
        self.linear_fuse = nn.Conv2d(
            width * len(config.hidden_sizes), width, 1, bias=False
        )
        self.batch_norm = nn.BatchNorm2d(width)
        self.activation = nn.ReLU()
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(width, config.num_labels, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Logits of the size of the first map."""
        same = [
            F.interpolate(project(x), maps[0].shape[2:], mode='bilinear')
            for project, x in zip(self.linear_projections, maps, strict=True)
        ]
        x = self.batch_norm(self.linear_fuse(torch.cat(same[::-1], 1)))
        return self.classifier(self.dropout(self.activation(x)))


class SegformerForSemanticSegmentation(nn.Module):
    """Encoder and head with random weights."""

    def __init__(self, config: SegformerConfig):
        super().__init__()
        widths = [3, *config.hidden_sizes]
        self.segformer = nn.ModuleList(
            nn.Conv2d(i, o, 7 if i == 3 else 3, s, 3 if i == 3 else 1)
            for i, o, s in zip(widths, widths[1:], (4, 2, 2, 2), strict=False)
        )
        self.decode_head = DecodeHead(config)

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        """Logits at a quarter of the picture's size."""
        maps, x = [], pixel_values
        for stage in self.segformer:
            x = stage(x).relu()
            maps.append(x)
        return SimpleNamespace(logits=self.decode_head(maps))
