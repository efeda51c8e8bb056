# Copyright (c) mmseg_attn contributors.
"""Features of both pictures at each disparity."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...registry import MODELS


@MODELS.register_module()
class ConcatCostVolume(nn.Module):
    """Both pictures' features side by side for each disparity.

    PSMNet, https://arxiv.org/abs/1803.08669, section 3.3.
    """

    def forward(self, left: Tensor, right: Tensor, disparities: int) -> Tensor:
        """Put each position beside those it may be in the right picture.

        Args:
            left: (B, C, H, W).
            right: A map of the same shape.
            disparities: Number D of disparities, in positions: 0 to D - 1.

        Returns:
            (B, 2C, D, H, W). At disparity d and column x the first C
            channels are those of ``left`` at x, the others those of
            ``right`` at x - d; 0 where that is outside of the picture.

        Raises:
            ValueError: The two have different shapes.
        """
        if left.shape != right.shape:
            raise ValueError(
                f'left is {tuple(left.shape)} and right '
                f'{tuple(right.shape)}: expected the same shape'
            )
        width = left.shape[-1]
        shifted = [
            F.pad(right, (shift, 0))[..., :width]
            for shift in range(disparities)
        ]
        shifts = torch.arange(disparities, device=left.device)
        columns = torch.arange(width, device=left.device)
        inside = (columns >= shifts[:, None])[:, None]  # (D, 1, W)
        own = torch.where(inside, left[:, :, None], 0)
        return torch.cat([own, torch.stack(shifted, 2)], dim=1)
