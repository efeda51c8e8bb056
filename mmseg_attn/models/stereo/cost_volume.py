# Copyright (c) mmseg_attn contributors.
"""Features of both pictures at each disparity."""

from __future__ import annotations

from torch import Tensor, nn

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
        batch, channels, height, width = left.shape
        volume = left.new_zeros(
            batch, 2 * channels, disparities, height, width
        )
        for shift in range(min(disparities, width)):
            volume[:, :channels, shift, :, shift:] = left[..., shift:]
            volume[:, channels:, shift, :, shift:] = right[
                ..., : width - shift
            ]
        return volume
