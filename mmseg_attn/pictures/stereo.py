# Copyright (c) mmseg_attn contributors.
"""Read the pictures of a stereo pair."""

from pathlib import Path

import numpy as np

from ..errors import UserError
from .decode import read_picture, size_text


def read_stereo_pair(
    left: str | Path, right: str | Path, depth: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Read a rectified pair.

    Args:
        left: File of the left picture.
        right: File of the right one.
        depth: Bits that 16-bit pictures use, as of
            :func:`~mmseg_attn.pictures.read_picture`.

    Returns:
        Both, (H, W, 3) uint8, BGR.

    Raises:
        UserError: A file is not a whole picture, or the two differ in size.
    """
    pair = tuple(read_picture(str(path), depth) for path in (left, right))
    sizes = [size_text(picture) for picture in pair]
    if sizes[0] != sizes[1]:
        raise UserError(
            f'{left} is {sizes[0]} pixels, {right} is {sizes[1]}: expected a '
            'rectified pair of one size.'
        )
    return pair
