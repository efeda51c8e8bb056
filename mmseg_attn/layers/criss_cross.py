# Copyright (c) mmseg_attn contributors.
from mmcv.cnn import Scale
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..ops import criss_cross_attention
from ..registry import MODELS


@MODELS.register_module()
class CrissCrossAttention(BaseModule):
    """placeholder (rewritten by the layer's author)."""

    def __init__(self, in_channels, init_cfg=None):
        super().__init__(init_cfg)
        self.query_conv = nn.Conv2d(in_channels, in_channels // 8, 1)
        self.key_conv = nn.Conv2d(in_channels, in_channels // 8, 1)
        self.value_conv = nn.Conv2d(in_channels, in_channels, 1)
        self.gamma = Scale(0.0)
        self.in_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            conv(x).movedim(1, -1).unsqueeze(-2)
            for conv in (self.query_conv, self.key_conv, self.value_conv)
        )
        out = criss_cross_attention(q, k, v).squeeze(-2).movedim(-1, 1)
        return x + self.gamma(out)
