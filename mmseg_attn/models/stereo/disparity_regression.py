# Copyright (c) mmseg_attn contributors.
"""From scores to disparities."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...ops.core.autograd import no_autocast
from ...registry import MODELS


@MODELS.register_module()
class DisparityRegression(nn.Module):
    """The mean disparity under the softmax of the scores.

    The scores are first brought to the size of the pictures. The softmax is
    of the scores, as in the official code; the paper writes their negative,
    which differs in the sign of the learned weights alone.

    Args:
        align_corners: Setting of the upsampling, see
            :class:`PSMNetFeatures`.

    PSMNet, https://arxiv.org/abs/1803.08669, equation 1.
    """

    def __init__(self, align_corners: bool = False):
        super().__init__()
        self.align_corners = align_corners

    def forward(
        self, scores: Tensor, disparities: int, size: tuple[int, int]
    ) -> Tensor:
        """Give a disparity to each pixel.

        Args:
            scores: (B, 1, D, h, w).
            disparities: Number of disparities at the size of the pictures.
            size: Height H and width W of the pictures.

        Returns:
            Disparities (B, H, W) in pixels, 0 to ``disparities - 1``, fp32.
        """
        scores = F.interpolate(
            scores.float(),
            (disparities, *size),
            mode='trilinear',
            align_corners=self.align_corners,
        )
        share = scores.squeeze(1).softmax(1)
        values = torch.arange(disparities, device=share.device)
        # In bfloat16 disparities of 64 and more have steps of half a pixel.
        with no_autocast(share):
            return torch.einsum('bdhw,d->bhw', share, values.to(share.dtype))
