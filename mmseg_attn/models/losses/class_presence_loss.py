# Copyright (c) mmseg_attn contributors.
"""SANet's loss on the classes of a picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.arguments import check_numbers
from ...ops.core.checks import check_choice
from ...registry import MODELS
from .arguments import check_loss_name

REDUCTIONS = ('mean', 'sum')


@MODELS.register_module()
class ClassPresenceLoss(nn.Module):
    """Binary cross entropy of which classes a picture holds.

    Pictures without any labelled pixel are left out; where none is left,
    the loss is 0 with gradients of 0.

    Args:
        reduction: What is made of the classes: ``'sum'`` is the paper's
            formula, ``'mean'`` is how similar losses are implemented. Of the
            pictures it is always the mean.
        loss_weight: Factor of the loss, 0.2 in the paper.
        loss_name: Its name in the log.

    Squeeze-and-Attention Networks, https://arxiv.org/abs/1909.03402,
    one of the losses of equations 6 to 9.
    """

    def __init__(
        self,
        reduction: str = 'mean',
        loss_weight: float = 0.2,
        loss_name: str = 'loss_presence',
    ):
        super().__init__()
        name = type(self).__name__
        check_choice(name, 'reduction', reduction, REDUCTIONS)
        check_numbers(name, 0, loss_weight=loss_weight)
        check_loss_name(name, loss_name)
        self.reduction = reduction
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(
        self, logits: Tensor, label: Tensor, ignore_index: int = 255
    ) -> Tensor:
        """Loss of a batch.

        Args:
            logits: (B, classes).
            label: (B, H, W), the class of each pixel or ``ignore_index``.
            ignore_index: Label of pixels that do not count.

        Returns:
            A scalar, in fp32 at least.

        Raises:
            ValueError: A label that is neither a class nor ignored.
        """
        classes = logits.shape[1]
        labels = label.flatten(1).long()
        ignored = labels == ignore_index
        wrong = ~ignored & ((labels < 0) | (labels >= classes))
        if wrong.any():
            raise ValueError(
                f'{type(self).__name__}: expected labels from 0 to '
                f'{classes - 1} or {ignore_index}, got '
                f'{sorted(labels[wrong].unique().tolist())[:5]}'
            )
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        # A column more, for ignored pixels.
        target = logits.new_zeros(len(logits), classes + 1)
        target.scatter_(1, labels.masked_fill(ignored, classes), 1)
        loss = F.binary_cross_entropy_with_logits(
            logits, target[:, :classes], reduction='none'
        )
        loss = loss.mean(1) if self.reduction == 'mean' else loss.sum(1)
        labelled = (~ignored).any(1)
        count = labelled.sum().clamp_min(1)
        return self.loss_weight * (loss * labelled).sum() / count
