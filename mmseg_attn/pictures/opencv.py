# Copyright (c) mmseg_attn contributors.
"""OpenCV where it is installed, and Pillow in its place where it is not.

The hosts bring OpenCV. Where an exported model runs alone it need not be
there: it is the largest package of all, and Pillow decodes the same pictures.
"""

import io

import numpy as np
from PIL import Image, ImageOps

from ..errors import need_package

try:
    import cv2
except ModuleNotFoundError:
    cv2 = None

# What OpenCV raises.
OPENCV_ERRORS = (cv2.error,) if cv2 else ()


def decode(data: bytes, color_type: str = 'color') -> np.ndarray | None:
    """Decode the file of a picture.

    Args:
        data: The file's content.
        color_type: mmcv's, but for ``'unchanged'``.

    Returns:
        (H, W, 3) BGR or (H, W), uint8 or uint16; None if it cannot be decoded.

    Raises:
        UserError: It takes OpenCV, which is not installed.
    """
    if cv2 is None:
        return decode_by_pillow(data, color_type)
    grey, turned = _wishes(color_type)
    flag = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    if not turned:
        flag |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        return cv2.imdecode(
            np.frombuffer(data, np.uint8), flag | cv2.IMREAD_ANYDEPTH
        )
    except cv2.error:  # empty, or too large
        return None


def decode_by_pillow(data: bytes, color_type: str) -> np.ndarray | None:
    """Decode the file of a picture without OpenCV, as :func:`decode`."""
    grey, turned = _wishes(color_type)
    try:
        with Image.open(io.BytesIO(data)) as image:
            bits = _bits(image, data)
            image.load()
            if turned and image.format != 'WEBP':  # as OpenCV does
                image = ImageOps.exif_transpose(image)
    # Pillow's readers raise whatever a broken file leads them to.
    except Exception:
        return None
    if bits > 8 and not image.mode.startswith('I'):
        need_package('a picture of 16 bits in colour', 'cv2')
    if bits > 8:
        values = np.asarray(image).astype(np.uint16) << (16 - bits)
        return values if grey else values[..., None].repeat(3, axis=-1)
    if grey:
        return np.array(image.convert('L'))
    return np.array(image.convert('RGB'))[..., ::-1]


def _wishes(color_type: str) -> tuple[bool, bool]:
    """Whether it is to be grey, and turned as its orientation says."""
    return 'grayscale' in color_type, 'ignore' not in color_type


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits of a value, up to 16; Pillow cuts those of colours to 8."""
    if image.format == 'PNG':
        return data[24]  # of the header IHDR
    if image.format == 'TIFF':
        return min(max(image.tag_v2.get(258, (1,))), 16)
    return 16 if image.mode.startswith('I') else 8
