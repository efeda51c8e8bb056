# Copyright (c) mmseg_attn contributors.
"""Bilinear resizing by numpy, as the hosts do it."""

import numpy as np

from ..pictures.opencv import cv2

# OpenCV resizes bytes by shares of so many parts.
PARTS = 2048


def resize(
    array: np.ndarray,
    size: tuple[int, int],
    align_corners: bool = False,
) -> np.ndarray:
    """Resize the last two axes, without smoothing before.

    Args:
        array: (..., H, W).
        size: Height and width wanted.
        align_corners: Whether the centres of the corners stay, or their
            outlines.

    Returns:
        (..., height, width) float32.
    """
    array = np.asarray(array, np.float32)
    for axis, new in ((-2, size[0]), (-1, size[1])):
        old = array.shape[axis]
        if new == old:
            continue
        if align_corners:
            at = np.linspace(0, old - 1, new)
        else:
            at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, None)
        low = np.minimum(at.astype(int), old - 1)
        high = np.minimum(low + 1, old - 1)
        shape = [1] * array.ndim
        shape[axis] = new
        share = (at - low).astype(np.float32).reshape(shape)
        below = array.take(low, axis)
        above = array.take(high, axis)
        array = below + (above - below) * share
    return array


def resize_bytes(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a picture as the hosts do, by OpenCV.

    Without it, by its arithmetic, value by value.

    Args:
        picture: (H, W, channels) uint8.
        size: Height and width wanted.

    Returns:
        (height, width, channels) uint8.
    """
    if picture.shape[:2] == tuple(size):
        return picture
    if cv2:
        return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR)
    low, high, below, above = _shares(picture.shape[1], size[1])
    wide = picture.astype(np.int64)
    wide = wide[:, low] * below[:, None] + wide[:, high] * above[:, None]
    wide >>= 4
    low, high, below, above = _shares(picture.shape[0], size[0])
    total = wide[low] * below[:, None, None] >> 16
    total += wide[high] * above[:, None, None] >> 16
    return np.clip(total + 2 >> 2, 0, 255).astype(np.uint8)


def _shares(old: int, new: int) -> tuple[np.ndarray, ...]:
    """Both neighbours of each new pixel, and what these count."""
    at = ((np.arange(new) + 0.5) * (old / new) - 0.5).astype(np.float32)
    low = np.floor(at).astype(int)
    share = (at - low).astype(np.float32)
    parts = [np.rint(part * PARTS).astype(int) for part in (1 - share, share)]
    # At the border both are the last pixel, and round down once each.
    return *(np.clip(side, 0, old - 1) for side in (low, low + 1)), *parts


def picture_size(
    size: tuple[int, int], scale: tuple[int, int], keep_ratio: bool
) -> tuple[int, int]:
    """Find the size that the test pipeline gives a picture.

    Args:
        size: Its height and width.
        scale: As in the pipeline, width and height.
        keep_ratio: Whether it bounds the longer and the shorter side.

    Returns:
        Height and width for the network.
    """
    if not keep_ratio:
        return scale[1], scale[0]
    factor = min(max(scale) / max(size), min(scale) / min(size))
    return tuple(int(side * factor + 0.5) for side in size)
