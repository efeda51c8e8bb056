# Copyright (c) mmseg_attn contributors.
"""The accuracy that mmseg's heads log, without sorting the classes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Where mmseg's BaseDecodeHead looks for it.
USER = 'mmseg.models.decode_heads.decode_head'


@contextmanager
def quick_accuracy() -> Iterator[None]:
    """Let mmseg's heads find the most likely class alone on a CPU.

    Beside each loss of ``BaseDecodeHead`` they log the accuracy, and sort the
    classes of each pixel (``topk``) to find one, which takes as long as the
    loss. Losses, and so weights, do not depend on it. Where classes score
    the same, as happens in 16 bits, another of them may count.

    The host's function is put back at the end. It is one for the process, so
    this is not for trainings in several threads.
    """
    heads = sys.modules.get(USER)
    host = getattr(heads, 'accuracy', None)
    if host is None:
        yield
        return

    def accuracy(*args, **kwargs) -> torch.Tensor:
        plain = len(args) == 2 and kwargs.keys() <= {'ignore_index'}
        if plain and args[0].device.type == 'cpu' and args[0].numel():
            return share_of_right(*args, kwargs.get('ignore_index'))
        return host(*args, **kwargs)

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
        ignore: The label that does not count; None: all do.

    Returns:
        (1,), in per cent of the places that count; 100 where none does, as
        the host has it.
    """
    # In this order of memory argmax is several times as fast on a CPU.
    found = scores.detach().movedim(1, -1).contiguous().argmax(-1)
    right = found.eq(labels)
    counted = right.numel()
    if ignore is not None:
        valid = labels != ignore
        right, counted = right & valid, int(valid.sum())
    if not counted:
        return scores.new_full((1,), 100.0)
    return 100 * right.sum().float().reshape(1) / counted
