# Copyright (c) mmseg_attn contributors.
"""The accuracy that mmseg's heads log, without sorting the classes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Where mmseg's heads look for it.
USER = 'mmseg.models.decode_heads.decode_head'


@contextmanager
def quick_accuracy() -> Iterator[None]:
    """Let mmseg's heads find the most likely class alone.

    They log the accuracy beside each loss, and sort the classes of each pixel
    (``topk``) to find one: on a CPU as long as the loss itself takes. Losses,
    and so weights, do not depend on it.
    """
    heads = sys.modules.get(USER)
    host = getattr(heads, 'accuracy', None)
    if host is None:
        yield
        return

    def accuracy(
        pred: torch.Tensor,
        target: torch.Tensor,
        *args,
        ignore_index: int | None = None,
        **kwargs,
    ) -> torch.Tensor:
        usual = pred.shape[:1] + pred.shape[2:] == target.shape
        if args or kwargs or not usual or not pred.numel():
            words = dict(ignore_index=ignore_index, **kwargs)
            return host(pred, target, *args, **words)
        return share_of_right(pred, target, ignore_index)

    heads.accuracy = accuracy
    try:
        yield
    finally:
        heads.accuracy = host


def share_of_right(
    scores: torch.Tensor, labels: torch.Tensor, ignore: int | None
) -> torch.Tensor:
    """Count the places where the label has the highest score.

    Args:
        scores: (N, classes, ...).
        labels: (N, ...), integers.
        ignore: The label that does not count.

    Returns:
        (1,), in per cent of the places that count; 0 where none does.
    """
    # In this order of memory argmax is several times as fast on a CPU.
    found = scores.detach().movedim(1, -1).contiguous().argmax(-1)
    counted = torch.ones_like(labels, dtype=torch.bool)
    if ignore is not None:
        counted = labels != ignore
    right = (found.eq(labels) & counted).sum().float()
    return (100 * right / counted.sum().clamp(min=1)).reshape(1)
