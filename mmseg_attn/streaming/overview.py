# Copyright (c) mmseg_attn contributors.
"""A picture and its class map, small enough to be looked at."""

import numpy as np

from .pictures import Picture
from .row_file import RowFile

# The longest side of an overlay, in pixels.
MOST = 4096


def overview(
    picture: Picture, labels: RowFile, most: int = MOST
) -> tuple[np.ndarray, np.ndarray]:
    """Make a picture and its class map small, band by band.

    Args:
        picture: The picture.
        labels: All rows of its class map.
        most: The longest side, in pixels; what is smaller stays as it is.

    Returns:
        (h, w, 3) uint8 BGR, the mean of the pixels that become one; and (h,
        w) class indices, that of one of them.
    """
    height, width = picture.height, picture.width
    # A strip of a few rows stays long rather than lose its height.
    step = min(-(-max(height, width) // most), height, width)
    height, width = height // step, width // step
    shown = np.zeros((height, width, 3), np.uint8)
    found = np.zeros((height, width), labels.dtype)
    rows = -(-256 // step)
    for top in range(0, height, rows):
        part = slice(top, min(top + rows, height))
        ends = part.start * step, part.stop * step
        pixels = picture.read(*ends)[0][:, : width * step]
        cells = pixels.reshape(-1, step, width, step, 3)
        shown[part] = np.rint(cells.mean((1, 3), dtype=np.float32))
        middle = slice(step // 2, None, step)
        found[part] = labels.read(*ends)[middle, middle][:, :width]
    return shown, found
