# Copyright (c) mmseg_attn contributors.
"""What mmseg's metrics keep of each picture, of all pictures together."""

import numpy as np


def total_areas(results: list) -> tuple[np.ndarray, ...]:
    """Sum up the pixels of each class.

    Args:
        results: What ``process`` of mmseg's ``IoUMetric`` kept of each
            picture.

    Returns:
        Pixels that are right, of the union, predicted and labelled, each of
        one number for each class.
    """
    return tuple(
        # The host's counts are of fp32, which has 24 bits for them.
        np.sum([np.asarray(areas[i]) for areas in results], 0, np.float64)
        for i in range(4)
    )


def class_iou(right: np.ndarray, union: np.ndarray) -> np.ndarray:
    """IoU of each class in per cent, NaN where it occurs nowhere.

    Args:
        right, union: Pixels, as :func:`total_areas` gives them.
    """
    with np.errstate(invalid='ignore'):
        return 100 * right / union
