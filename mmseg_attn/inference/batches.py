# Copyright (c) mmseg_attn contributors.
"""Gather pictures of one size into batches."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from ..errors import UserError
from .samples import Sample

Key = TypeVar('Key')

# Pictures that wait for others of their size: so many times a batch.
WAITING = 8


def batches(
    samples: Iterable[tuple[Key, Sample]], batch_size: int
) -> Iterator[list[tuple[Key, Sample]]]:
    """Gather pictures that are of one size for the network.

    A batch comes as soon as it is full. Where many sizes wait for more, the
    size that has waited longest comes as it is, so that memory is bounded.

    Args:
        samples: Prepared pictures, each with what tells it apart.
        batch_size: The most pictures of a batch.

    Yields:
        Batches; within one the order is kept.
    """
    waiting: dict[tuple, list[tuple[Key, Sample]]] = {}
    for key, sample in samples:
        size = _input_size(sample)
        batch = waiting.setdefault(size, [])
        batch.append((key, sample))
        if len(batch) == batch_size:
            yield waiting.pop(size)
        elif sum(map(len, waiting.values())) >= WAITING * batch_size:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


def _input_size(sample: Sample) -> tuple:
    """The shape of what the network sees, or those of all augmented views."""
    inputs = sample.data['inputs']
    views = inputs if isinstance(inputs, list) else [inputs]
    return tuple(tuple(view.shape) for view in views)


def check_batch_size(batch_size: int) -> None:
    """Refuse what is no number of pictures.

    Args:
        batch_size: What was given for it.

    Raises:
        UserError: It is no whole number of at least 1.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UserError(
            f'batch_size (--batch-size) must be 1+, got {batch_size!r}.'
        )
