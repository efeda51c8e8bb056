# Copyright (c) mmseg_attn contributors.
"""Pictures as they are read."""

import cv2
import mmcv
import numpy as np
from PIL import ExifTags, Image

from ..errors import UserError


def read_picture(path: str) -> np.ndarray:
    """Read a picture, or say what is wrong with it.

    Args:
        path: The file.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        UserError: It is missing, or no whole picture.
    """
    try:
        picture = mmcv.imread(path)
    except FileNotFoundError:
        raise UserError(f'picture {path} does not exist.') from None
    except cv2.error:  # of an empty file
        picture = None
    if picture is None:
        raise UserError(
            f'{path} cannot be read as a picture: it is damaged, cut off, or '
            'in a format that OpenCV does not know.'
        )
    return picture


def picture_size(path: str) -> tuple[int, int]:
    """Size of a picture as OpenCV reads it, from the file's head alone.

    Args:
        path: The file.

    Returns:
        Width and height in pixels, upright as the camera was held (EXIF).

    Raises:
        UserError: It is no picture.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turn = image.getexif().get(ExifTags.Base.Orientation, 1)
    except OSError as error:
        raise UserError(f'{path} cannot be read as a picture.') from error
    return (height, width) if turn in (5, 6, 7, 8) else (width, height)


def size_text(picture: np.ndarray) -> str:
    """Width and height of a picture, for messages."""
    return f'{picture.shape[1]} x {picture.shape[0]}'
