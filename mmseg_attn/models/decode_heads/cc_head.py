# Copyright (c) mmseg_attn contributors.
import torch
from mmseg.models.decode_heads import FCNHead

from ...layers import CrissCrossAttention
from ...registry import MODELS


@MODELS.register_module()
class CCHead(FCNHead):
    """placeholder (rewritten by the head's author)."""

    def __init__(self, recurrence=2, **kwargs):
        super().__init__(num_convs=2, **kwargs)
        self.recurrence = recurrence
        self.cca = CrissCrossAttention(self.channels)

    def _forward_feature(self, inputs):
        x = self._transform_inputs(inputs)
        feats = self.convs[0](x)
        for _ in range(self.recurrence):
            feats = self.cca(feats)
        feats = self.convs[1](feats)
        if self.concat_input:
            feats = self.conv_cat(torch.cat([x, feats], dim=1))
        return feats

    def forward(self, inputs):
        return self.cls_seg(self._forward_feature(inputs))
