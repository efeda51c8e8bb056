# Copyright (c) mmseg_attn contributors.
"""Decode pictures, or say what they are and what to set."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import UserError
from .heads import MOST_PIXELS, Head, read_head
from .opencv import decode, decode_by_pillow

# Nothing above a quarter of the range: darker than any picture should be.
DARK = 2**14
WITHOUT_CHANGE = (
    'To have a network see the values as they are, load them with imdecode_'
    "backend='tifffile', color_type='unchanged', to_float32=True, and "
    'normalise them.'
)


def read_picture(path: str, depth: int | None = None) -> np.ndarray:
    """Read a picture, or say what is wrong with it.

    Args:
        path: The file.
        depth: Bits that the values of 16-bit pictures use, see
            :func:`decode_picture`.

    Returns:
        (H, W, 3) uint8, BGR, upright.

    Raises:
        UserError: It is missing, no whole picture, or of values that have no
            colour.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f'picture {path} does not exist.') from None
    except IsADirectoryError:
        raise UserError(f'{path} is a folder, expected a picture.') from None
    return decode_picture(data, path, depth=depth)


def decode_picture(
    data: bytes, path: str, color_type: str = 'color', depth: int | None = None
) -> np.ndarray:
    """Decode a picture to 8 bits, or say what is wrong with it.

    Args:
        data: The file's content.
        path: Its name, for messages.
        color_type: mmcv's, but for ``'unchanged'``.
        depth: Bits that the values of 16-bit pictures use, 9 to 16: those of
            a camera of 12 bits are 0 to 4095. None takes 16 and refuses a
            picture that uses 14 or less, which would be all but black. Those
            of 8 bits, and TIFF files that say their bits, stay as they are.

    Returns:
        (H, W, 3) uint8, BGR, or (H, W) of a grey one; upright, unless the
        colour type ignores the orientation.

    Raises:
        UserError: It is no whole picture, too large, or of values that have no
            colour; the message says what it is and what to set.
    """
    check_depth(depth)
    webp = data[8:12] == b'WEBP'
    head = None if _is_plain(data) else open_head(data, path)
    if head and not webp:
        check_head(head, path)
    # OpenCV has no TIFF of these bits.
    few = head and head.tiff and head.bits in (2, 4)
    picture = (decode_by_pillow if few else decode)(data, color_type)
    if picture is None:
        raise UserError(why_not(data, path))
    if webp and head and 'ignore' not in color_type:
        picture = _turned(picture, head.turn)  # OpenCV turns the others
    if picture.dtype == np.uint16 and head and head.tiff:
        if head.white_first:  # OpenCV sees to it with 8 bits alone
            picture = ~picture
        if head.bits < 16:  # the file itself says it, and OpenCV fills them up
            depth = 16
    if picture.dtype != np.uint8:
        picture = to_8_bits(picture, path, depth)
    return np.ascontiguousarray(picture)


def check_depth(depth: int | None) -> None:
    """Refuse a number of bits that a 16-bit picture cannot use.

    Args:
        depth: The number, or None.

    Raises:
        UserError: It is not from 9 to 16.
    """
    if depth is not None and not (isinstance(depth, int) and 9 <= depth <= 16):
        raise UserError(
            f'depth (--depth) is {depth!r}, expected the bits that the values '
            'of 16-bit pictures use, 9 to 16.'
        )


def picture_size(path: str) -> tuple[int, int]:
    """Size of a picture as it is read, from the file's head alone.

    Args:
        path: The file.

    Returns:
        Width and height in pixels, upright as the camera was held (EXIF).

    Raises:
        UserError: It is no picture.
    """
    head = open_head(path, path)
    if head is None:
        raise UserError(f'{path} cannot be read as a picture.')
    return head.size


def size_text(picture: np.ndarray) -> str:
    """Its width and height, for messages."""
    return f'{picture.shape[1]} x {picture.shape[0]}'


def _is_plain(data: bytes) -> bool:
    """Whether it is JPEG or PNG, which OpenCV reads right."""
    return data[:2] == b'\xff\xd8' or data[:4] == b'\x89PNG'


def open_head(data: bytes | str, path: str) -> Head | None:
    """Read the head of a picture.

    Args:
        data: The file's content, or its path.
        path: Its name, for messages.

    Returns:
        What it says; None where it is no picture.

    Raises:
        UserError: It is far too large.
    """
    try:
        return read_head(data)
    except Image.DecompressionBombError as error:
        reason = str(error).partition(',')[0]
        raise UserError(
            f'{path} is too large: {reason}. Cut it into tiles.'
        ) from error


def check_head(head: Head, path: str, bands: bool = True) -> None:
    """Refuse what OpenCV would misread or call damaged.

    Args:
        head: The head of the file.
        path: Its name, for messages.
        bands: Whether it must have the bands of a picture, 1, 3 or 4.

    Raises:
        UserError: It has values that are no colours.
    """
    if head.pages > 1 and head.tiff:
        raise UserError(
            f'{path} has {head.pages} pages, of which only the first would be '
            'read: save each as a file of its own.'
        )
    if bands and (head.bands > 4 or (head.bands == 2 and not head.alpha)):
        raise UserError(
            f'{path} has {head.bands} bands, expected 1, 3 or 4. '
            + WITHOUT_CHANGE
            + f' Set in_channels of the backbone to {head.bands} and '
            'data_preprocessor.mean and std to None.'
        )
    if head.kind != 'unsigned' or head.bits > 16:
        what = {
            'float': f'of {head.bits}-bit floating point values',
            'signed': f'of signed {head.bits}-bit values',
            'unsigned': f'of {head.bits}-bit values',
        }[head.kind]
        raise UserError(
            f'{path} is a picture {what}, which have no colour: expected 8 or '
            '16 bits without sign. Convert it with a range of your choice. '
            + WITHOUT_CHANGE
        )


def why_not(data: bytes, path: str) -> str:
    """Say why a file cannot be decoded, as far as its head tells.

    Args:
        data: The file's content.
        path: Its name, for messages.
    """
    try:
        head = open_head(data, path) if data else None
    except UserError as error:
        return str(error)
    if head:
        if head.tiff:
            try:
                check_head(head, path)
            except UserError as error:
                return str(error)
        limit = int(os.environ.get('OPENCV_IO_MAX_IMAGE_PIXELS', MOST_PIXELS))
        if head.width * head.height > limit or max(head.size) > 2**20:
            return (
                f'{path} is {head.width} x {head.height} pixels, more than '
                f'OpenCV reads ({limit}, and 1048576 a side): cut it into '
                'tiles, or set the environment variables '
                'OPENCV_IO_MAX_IMAGE_PIXELS, _WIDTH and _HEIGHT.'
            )
    what = 'damaged, cut off, or in a format that OpenCV does not know'
    what = what if data else 'empty'
    return f'{path} cannot be read as a picture: it is {what}.'


def _turned(picture: np.ndarray, turn: int) -> np.ndarray:
    """Turn a picture upright, as the orientation tag says."""
    if turn in (5, 6, 7, 8):
        picture = picture.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        picture = picture[::-1]
    if turn in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    return picture


def to_8_bits(
    picture: np.ndarray,
    path: str,
    depth: int | None,
    largest: int | None = None,
) -> np.ndarray:
    """Scale a picture of 16 bits to 8.

    Args:
        picture: Its values.
        path: Its name, for messages.
        depth: Bits that they use, as of :func:`decode_picture`.
        largest: The largest value of the whole picture where these are a part
            of it; by default theirs.

    Returns:
        The same shape, uint8.

    Raises:
        UserError: They are of another type, or do not use these bits.
    """
    if picture.dtype != np.uint16:
        raise UserError(
            f'{path} holds values of type {picture.dtype}, which have no '
            'colour: expected 8 or 16 bits without sign. ' + WITHOUT_CHANGE
        )
    largest = int(picture.max()) if largest is None else largest
    if depth is None:
        if largest < DARK:
            bits = max(largest.bit_length(), 9)
            raise UserError(
                f'{path} has 16 bits per value, but its largest value is '
                f'{largest}: read as 16 bits it would be nearly black. Say '
                f'how many bits are used, such as {bits} (or 16 if it is as '
                'dark as that): --depth of predict, demo and compare, or '
                "dict(type='mmseg_attn.LoadPicture', depth=...) in place of "
                'LoadImageFromFile in the config.'
            )
        return (picture >> 8).astype(np.uint8)
    most = 2**depth - 1
    if largest > most:
        raise UserError(
            f'{path} holds the value {largest}, more than {depth} bits '
            f'(depth, --depth) have: {most}.'
        )
    scaled = picture.astype(np.float32) * (255 / most)
    return np.rint(scaled).astype(np.uint8)
