# Copyright (c) mmseg_attn contributors.
"""The mIoU of a model and of what it was exported to, on labelled pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from ..apis import make_predictor
from ..datasets.mask_classes import IGNORED
from ..datasets.pairs import Pair, find_pairs, read_pair
from ..errors import UserError
from ..evaluation.areas import class_iou
from ..runtime import open_runner


def labelled_pairs(images: Path | None, masks: Path | None) -> list[Pair]:
    """Find labelled pictures, before long work.

    Args:
        images: Folder of pictures.
        masks: Folder of their masks.

    Returns:
        None where no folder is given.

    Raises:
        UserError: One is missing.
    """
    if (images is None) != (masks is None):
        raise UserError('the mIoU needs both folders: --images and --masks.')
    return find_pairs(images, masks)[0] if images else []


def mean_ious(
    model: nn.Module, exported: str | Path, pairs: Sequence[Pair]
) -> tuple[float, float]:
    """Measure a model and an exported file on labelled pictures.

    Args:
        model: The model.
        exported: The file.
        pairs: Pictures, and masks with class indices, 255 where none counts.

    Returns:
        Mean IoU of both, in per cent, over the classes that occur.

    Raises:
        UserError: A mask has other values.
    """
    runners = make_predictor(model), open_runner(exported)
    classes = len(runners[1].card.classes)
    counts = np.zeros((2, classes, classes), np.int64)
    for pair in pairs:
        _, labels, _ = read_pair(pair, None)
        kept = labels != IGNORED
        if labels[kept].max(initial=0) >= classes:
            raise UserError(
                f'{pair.mask} has the value {labels[kept].max()}, expected '
                f'class indices below {classes}, and 255 where none counts: '
                'the command train writes such masks into its folder data.'
            )
        for count, runner in zip(counts, runners, strict=True):
            count += _confusion(runner, pair.picture, labels, kept, classes)
    return tuple(map(_mean_iou, counts))


def _confusion(
    runner: Callable,
    picture: Path,
    labels: np.ndarray,
    kept: np.ndarray,
    classes: int,
) -> np.ndarray:
    (found,) = runner([runner.prepare(picture)])
    index = labels[kept].astype(int) * classes + found[kept]
    return np.bincount(index, minlength=classes**2).reshape(classes, classes)


def _mean_iou(confusion: np.ndarray) -> float:
    right = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - right
    return float(np.nanmean(class_iou(right, union)))
