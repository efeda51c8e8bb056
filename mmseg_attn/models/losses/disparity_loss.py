# Copyright (c) mmseg_attn contributors.
"""PSMNet's loss on disparities."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.arguments import check_numbers
from ...registry import MODELS


@MODELS.register_module()
class DisparityLoss(nn.Module):
    """Smooth L1 distance of several predicted maps from the true one.

    Each distance is the mean over the pixels whose true disparity is known
    and below ``max_disparity``.

    Args:
        max_disparity: Disparity in pixels from which on a pixel does not
            count; unknown disparities are infinite.
        weights: Weights of the maps, in the order in which the network gives
            them: a network with fewer maps uses the last ones.

    PSMNet, https://arxiv.org/abs/1803.08669, equations 2 and 3, and
    section 4.1 for the weights.
    """

    def __init__(
        self,
        max_disparity: float = 192,
        weights: Sequence[float] = (0.5, 0.7, 1.0),
    ):
        super().__init__()
        name = type(self).__name__
        if not isinstance(max_disparity, (int, float)) or not (
            max_disparity > 0
        ):
            raise ValueError(
                f'{name}: max_disparity must be a number above 0, or '
                f'infinite, got {max_disparity!r}'
            )
        if not isinstance(weights, Sequence) or not weights:
            raise ValueError(
                f'{name}: weights must be a number for each map, such as '
                f'(0.5, 0.7, 1.0), got {weights!r}'
            )
        for weight in weights:
            check_numbers(name, 0, weights=weight)
        self.max_disparity = max_disparity
        self.weights = tuple(weights)

    def forward(self, predicted: Sequence[Tensor], target: Tensor) -> Tensor:
        """Weighted sum of the distances.

        Args:
            predicted: Maps (B, H, W) in pixels.
            target: True map (B, H, W) in pixels, infinite where unknown.

        Returns:
            A number; 0 with zero gradients where no disparity counts.

        Raises:
            ValueError: There are more maps than weights.
        """
        if len(predicted) > len(self.weights):
            raise ValueError(
                f'got {len(predicted)} maps for {len(self.weights)} weights: '
                'expected a weight for each output of the network'
            )
        counts = target < self.max_disparity
        number = counts.sum().clamp(min=1)
        target = target.where(counts, 0).float()
        weights = self.weights[len(self.weights) - len(predicted) :]
        total = target.new_zeros(())
        for weight, found in zip(weights, predicted, strict=True):
            distance = F.smooth_l1_loss(
                found.float(), target, reduction='none'
            )
            total = total + weight * (distance * counts).sum() / number
        return total
