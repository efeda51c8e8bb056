# Copyright (c) mmseg_attn contributors.
"""Weights of classes, as weights of pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...registry import TASK_UTILS


@TASK_UTILS.register_module()
class ClassWeightPixelSampler:
    """Pixels weighted by their class, so that the loss is the weighted mean.

    The loss becomes that of ``torch.nn.CrossEntropyLoss`` with these weights:
    the sum of the pixels' losses times their weights, divided by the sum of
    the weights. The hosts' ``class_weight`` is not: in mmsegmentation 1.2.2 it
    fails where pixels are ignored. Needs ``avg_non_ignore=True`` in the loss.

    Args:
        context: The decode head (given by the head itself).
        class_weight: A weight for each class.

    Raises:
        ValueError: There is not a positive, finite weight for each class.

    Source: ISANet, https://github.com/openseg-group/openseg.pytorch, losses.
    """

    def __init__(
        self, context: nn.Module, class_weight: Sequence[float]
    ) -> None:
        listed = isinstance(class_weight, Sequence)
        if not listed or isinstance(class_weight, str):
            raise ValueError(
                f'class_weight must be numbers, got {class_weight!r}'
            )
        if len(class_weight) != context.num_classes:
            raise ValueError(
                f'class_weight has {len(class_weight)} weights, expected '
                f'{context.num_classes}, one for each class'
            )
        if not all(0 < weight < float('inf') for weight in class_weight):
            raise ValueError(
                'class_weight must be positive finite numbers, got '
                f'{list(class_weight)}'
            )
        self.context = context
        self.class_weight = class_weight

    @torch.no_grad()
    def sample(self, seg_logit: Tensor, seg_label: Tensor) -> Tensor:
        """Weigh the pixels of a batch.

        Args:
            seg_logit: Logits (B, classes, H, W).
            seg_label: Labels (B, 1, H, W).

        Returns:
            Weights (B, H, W): 0 for the ignored, otherwise that of the class,
            divided by the mean over the labelled pixels.
        """
        label = seg_label.squeeze(1)
        valid = label != self.context.ignore_index
        table = seg_logit.new_tensor(self.class_weight, dtype=torch.float32)
        weight = table[label.where(valid, torch.zeros_like(label))] * valid
        # All ignored: 0 / 1.
        return weight * (valid.sum() / weight.sum().clamp(min=table.min()))
