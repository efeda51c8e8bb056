# Copyright (c) mmseg_attn contributors.
"""Online hard example mining over a batch."""

import torch
from torch import Tensor, nn

from ...layers.arguments import check_numbers
from ...registry import TASK_UTILS


@TASK_UTILS.register_module()
class OHEMPixelSampler:
    """Hard pixels of a batch, weighted so that the loss is their mean.

    It differs from the host's sampler of this name in two points that change
    the training: ``min_kept`` counts pixels of the batch, not of a picture,
    and the weights of the kept pixels are scaled up by (labelled pixels /
    kept pixels). With the host's, the loss of the kept pixels is divided by
    all pixels, so that the better the model the less the head's loss weighs
    against the auxiliary one. Needs ``avg_non_ignore=True`` in the loss.

    Args:
        context: The decode head (given by the head itself).
        thresh: Probability: a pixel whose true class has at most this one is
            kept.
        min_kept: How many pixels of the batch are kept at least, the hardest
            first.

    Raises:
        ValueError: ``thresh`` is not in (0, 1] or ``min_kept`` is negative.

    Source: CCNet, https://github.com/speedinghzl/CCNet, OHEM criterion. It
    looks for the threshold on a grid 8 times coarser; here all pixels count.
    """

    def __init__(
        self,
        context: nn.Module,
        thresh: float = 0.7,
        min_kept: int = 100000,
    ) -> None:
        name = type(self).__name__
        check_numbers(name, thresh=thresh)
        if not 0 < thresh <= 1:
            raise ValueError(f'{name}: thresh must be in (0, 1], got {thresh}')
        if type(min_kept) is not int or min_kept < 0:
            raise ValueError(
                f'{name}: min_kept must be a whole number of at least 0, got '
                f'{min_kept!r}'
            )
        self.context = context
        self.thresh = thresh
        self.min_kept = min_kept

    @torch.no_grad()
    def sample(self, seg_logit: Tensor, seg_label: Tensor) -> Tensor:
        """Weigh the pixels of a batch.

        Args:
            seg_logit: Logits (B, classes, H, W), or (B, 1, H, W) of the
                foreground alone.
            seg_label: Labels (B, 1, H, W).

        Returns:
            Weights (B, H, W): 0 for the dropped and the ignored,
            otherwise labelled pixels / kept pixels.
        """
        label = seg_label.squeeze(1)
        valid = label != self.context.ignore_index
        labelled = int(valid.sum())
        if labelled == 0:
            return torch.zeros_like(valid, dtype=torch.float32)
        index = label.where(valid, torch.zeros_like(label)).unsqueeze(1)
        if seg_logit.shape[1] == 1:  # of the foreground alone
            front = seg_logit.float().sigmoid()
            prob = torch.where(index == 1, front, 1 - front).squeeze(1)
        else:
            prob = seg_logit.float().softmax(1).gather(1, index).squeeze(1)
        thresh = self.thresh
        if self.min_kept:
            hardest = min(self.min_kept, labelled)
            thresh = prob[valid].kthvalue(hardest)[0].clamp(min=thresh)
        kept = valid & (prob <= thresh)
        return kept.float() * (labelled / kept.sum().clamp(min=1))
