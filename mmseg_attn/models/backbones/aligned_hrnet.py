# Copyright (c) mmseg_attn contributors.
"""HRNet whose maps are enlarged corner on corner."""

import torch.nn.functional as F
from mmengine.model import BaseModule, Sequential
from mmseg.models.backbones import HRNet
from mmseg.models.utils import Upsample
from torch import Tensor, nn

from ...registry import MODELS


class AlignedModule(BaseModule):
    """A host's module of parallel branches that fuses with aligned corners.

    Args:
        module: The host's, whose parts are taken over.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.branches = module.branches
        self.fuse_layers = module.fuse_layers
        self.relu = module.relu
        for layers in self.fuse_layers:
            for layer in layers:
                if layer is not None and isinstance(layer[-1], Upsample):
                    layer[-1] = nn.Identity()

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Each branch, then their maps fused at each resolution.

        Args:
            x: A map (B, C, H, W) for each branch.

        Returns:
            Maps of the same shapes.
        """
        maps = [branch(y) for branch, y in zip(self.branches, x, strict=True)]
        fused = []
        for i, layers in enumerate(self.fuse_layers):
            total = maps[i]
            for j, layer in enumerate(layers):
                if layer is None:  # of the map itself
                    continue
                y = layer(maps[j])
                if j > i:
                    y = F.interpolate(
                        y, total.shape[2:], mode='bilinear', align_corners=True
                    )
                total = total + y
            fused.append(self.relu(total))
        return fused


@MODELS.register_module()
class AlignedHRNet(HRNet):
    """HRNet as openseg's code has it: maps are enlarged with aligned corners.

    The host's does not align them in the layers that fuse the branches,
    which gives other features. Parameters and their names are the host's,
    arguments and outputs too: ``open-mmlab://msra/hrnetv2_w48`` loads
    unchanged.

    Source: openseg, https://github.com/openseg-group/openseg.pytorch,
    lib/models/backbones/hrnet.
    """

    def _make_stage(self, *args, **kwargs):
        stage, channels = super()._make_stage(*args, **kwargs)
        return Sequential(*map(AlignedModule, stage)), channels
