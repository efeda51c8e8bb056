# Copyright (c) mmseg_attn contributors.
"""CCNet's loss on features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.arguments import check_counts, check_numbers
from ...ops.core.checks import check_choice
from ...registry import MODELS
from .arguments import check_loss_name


@MODELS.register_module()
class CategoryConsistentLoss(nn.Module):
    """Pull features of one class together and class centres apart.

    With mu_c the mean feature of class c over the batch, |C| the number of
    classes in it, and d = ||mu_c - h_i||:

    - variance: mean over classes of the mean over pixels of 0 for
      d <= delta_var, (d - delta_var)^2 up to delta_dist, and
      d - delta_dist + (delta_dist - delta_var)^2 beyond;
    - distance: mean over ordered pairs of classes of
      max(0, 2 delta_dist - ||mu_a - mu_b||)^2; 0 with a single class;
    - regularisation: mean over classes of ||mu_c||.

    The loss is alpha * variance + beta * distance + gamma * regularisation,
    in fp32. Centres are those of the batch on this process and keep their
    gradient. Never released by the authors; the paper leaves open at which
    resolution labels and features meet (``resize``).

    Args:
        delta_var: Distance to the centre that costs nothing.
        delta_dist: Half the distance that centres should keep.
        alpha: Weight of the variance term.
        beta: Weight of the distance term.
        gamma: Weight of the regularisation term.
        min_pixels: Classes with fewer pixels in the batch, counted where
            features and labels meet, are left out.
        variance: 'piecewise' as above, or 'quadratic' (the paper's
            ablation): (d - delta_var)^2 for all d > delta_var.
        resize: 'label' picks the nearest label of each feature (cheap);
            'feature' enlarges the features to the label's size bilinearly.
        align_corners: Where features lie: as where the model resizes with
            this setting.
        loss_weight: Weight of the loss.
        loss_name: Its name in the logs; must begin with ``loss``.

    CCNet, https://arxiv.org/abs/1811.11721, section 3.3.
    """

    def __init__(
        self,
        delta_var: float = 0.5,
        delta_dist: float = 1.5,
        *,
        alpha: float = 1.0,
        beta: float = 1.0,
        gamma: float = 0.001,
        min_pixels: int = 1,
        variance: str = 'piecewise',
        resize: str = 'label',
        align_corners: bool = False,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_ccl',
    ):
        super().__init__()
        name = type(self).__name__
        check_numbers(name, delta_var=delta_var, delta_dist=delta_dist)
        check_numbers(
            name,
            0,
            alpha=alpha,
            beta=beta,
            gamma=gamma,
            loss_weight=loss_weight,
        )
        check_counts(name, min_pixels=min_pixels)
        if not 0 <= delta_var < delta_dist:
            raise ValueError(
                f'{name}: expected 0 <= delta_var < delta_dist, got '
                f'delta_var={delta_var} and delta_dist={delta_dist}'
            )
        check_choice(name, 'variance', variance, ('piecewise', 'quadratic'))
        check_choice(name, 'resize', resize, ('label', 'feature'))
        check_loss_name(name, loss_name)
        self.delta_var = delta_var
        self.delta_dist = delta_dist
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.min_pixels = min_pixels
        self.variance = variance
        self.resize = resize
        self.align_corners = align_corners
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(
        self, features: Tensor, label: Tensor, ignore_index: int = 255
    ) -> Tensor:
        """Loss of a batch.

        Args:
            features: (B, D, H, W).
            label: Integers (B, h, w) or (B, 1, h, w), of any size.
            ignore_index: Label of pixels that do not count.

        Returns:
            Scalar in fp32; 0 with zero gradients where no pixel counts.

        Raises:
            TypeError: The label does not hold integers.
            ValueError: Shapes that do not fit.
        """
        label = _checked_label(features, label)
        with torch.autocast(features.device.type, enabled=False):
            pixels, label = self._meet(features.float(), label)
            loss = self._loss(pixels, label, ignore_index)
        return self.loss_weight * loss

    def _meet(self, features, label):
        """Features and labels of the same pixels, (N, D) and (N,)."""
        if self.resize == 'feature':
            features = F.interpolate(
                features,
                label.shape[1:],
                mode='bilinear',
                align_corners=self.align_corners,
            )
        else:
            for axis in (1, 2):
                places = self._places(
                    label.shape[axis], features.shape[axis + 1]
                )
                label = label.index_select(axis, places.to(label.device))
        return features.movedim(1, -1).flatten(0, 2), label.flatten()

    def _places(self, pixels: int, cells: int) -> Tensor:
        """The pixel nearest to the centre of each cell of a smaller grid."""
        cell = torch.arange(cells, dtype=torch.float64)
        if self.align_corners:
            return (cell * (pixels - 1) / max(cells - 1, 1)).round().long()
        return ((cell + 0.5) * pixels / cells).floor().long()

    def _loss(self, pixels, label, ignore_index):
        classes, index, counts = label.unique(
            return_inverse=True, return_counts=True
        )
        used = (classes != ignore_index) & (counts >= self.min_pixels)
        # Numbers the used classes from 0, to count and sum over them alone.
        keep = used[index]
        index = (used.cumsum(0) - 1)[index[keep]]
        pixels, counts = pixels[keep], counts[used].to(pixels.dtype)
        if len(counts) == 0:
            return pixels.sum()  # 0, with a gradient for every process

        def class_mean(values):
            total = values.new_zeros(len(counts), values.shape[1])
            return total.index_add(0, index, values) / counts[:, None]

        centres = class_mean(pixels)
        spread = self._spread(_norm(centres[index] - pixels))
        loss = self.alpha * class_mean(spread[:, None]).mean()
        loss = loss + self.gamma * _norm(centres).mean()
        if len(counts) > 1:
            # Each pair once: the mean is that over ordered pairs.
            a, b = torch.triu_indices(
                len(counts), len(counts), 1, device=pixels.device
            )
            gap = 2 * self.delta_dist - _norm(centres[a] - centres[b])
            loss = loss + self.beta * gap.clamp(min=0).square().mean()
        return loss

    def _spread(self, distance):
        excess = (distance - self.delta_var).clamp(min=0)
        if self.variance == 'quadratic':
            return excess.square()
        width = self.delta_dist - self.delta_var
        linear = distance - self.delta_dist + width**2
        return torch.where(excess > width, linear, excess.square())


def _norm(x):
    # Not torch's norm, for a zero gradient at 0 that is safe to divide by.
    return (x.square().sum(-1) + 1e-12).sqrt()


def _checked_label(features, label):
    if label.ndim == 4 and label.shape[1] == 1:
        label = label[:, 0]
    if features.ndim != 4 or label.ndim != 3 or len(features) != len(label):
        raise ValueError(
            'expected features (B, D, H, W) and label (B, h, w) or '
            f'(B, 1, h, w), got {tuple(features.shape)} and '
            f'{tuple(label.shape)}'
        )
    if label.is_floating_point() or label.dtype == torch.bool:
        raise TypeError(f'expected labels of integers, got {label.dtype}')
    return label
