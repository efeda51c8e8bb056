# Copyright (c) mmseg_attn contributors.
"""Read and write disparity maps: PFM, and KITTI's 16-bit PNG."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import UserError, need_package
from .opencv import cv2

# A 16-bit PNG holds 256ths of a pixel; 0 stands for unknown.
PNG_STEPS = 256
# What some writers leave behind the numbers: a line end, or a filled-up block.
# More of it would be of a larger map.
MOST_TRAILING_BYTES = 16
# Magic number, width, height and scale, each ended by one white space, or
# by a line end of Windows.
HEADER = re.compile(
    rb'(P[fF])\s+([1-9]\d*)\s+([1-9]\d*)\s+'
    rb'([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?:\r\n|\s)'
)


def read_disparity(path: str | Path) -> np.ndarray:
    """Read the disparities of a left picture.

    Args:
        path: A ``.pfm``, or a 16-bit ``.png`` as KITTI's.

    Returns:
        (H, W) float32 in pixels, infinite where unknown.

    Raises:
        UserError: The file is missing, cut off, of another format, or holds
            NaN or nothing but negative numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'disparity map {path} does not exist.')
    if path.suffix.lower() == '.pfm':
        disparity = read_pfm(path)
    else:
        disparity = _read_png(path)
    if np.isnan(disparity).any():
        raise UserError(
            f'{path} holds {np.isnan(disparity).sum()} values that are not a '
            'number (NaN): write inf where the disparity is unknown.'
        )
    disparity[np.isneginf(disparity)] = np.inf
    known = disparity[np.isfinite(disparity)]
    if known.size and known.max() < 0:
        raise UserError(
            f'{path} holds negative disparities alone: expected how far left '
            'of its place in the left picture a point is in the right one, '
            'as positive numbers.'
        )
    return disparity


def read_pfm(path: str | Path) -> np.ndarray:
    """Read a portable float map of one channel.

    Args:
        path: The file, of either byte order.

    Returns:
        (H, W) float32, top row first.

    Raises:
        UserError: It is no such file, cut off, or too long.
    """
    # Not by OpenCV, which divides by the scale that Middlebury's files name
    # (1/255, though their numbers are pixels), refuses line ends of Windows,
    # and takes files that are too long.
    data = Path(path).read_bytes()
    header = HEADER.match(data)
    if not header or header[1] != b'Pf' or not float(header[4]):
        found = 'one of colours' if header else f'{data[:20]!r} at its start'
        raise UserError(
            f'{path} is no PFM file of one channel ("Pf", width, height, '
            f'scale): got {found}.'
        )
    width, height = int(header[2]), int(header[3])
    expected, got = 4 * width * height, len(data) - header.end()
    if not expected <= got <= expected + MOST_TRAILING_BYTES:
        raise UserError(
            f'{path} is cut off or damaged: {width} x {height} pixels need '
            f'{expected} bytes, got {got}.'
        )
    order = '<f4' if float(header[4]) < 0 else '>f4'
    rows = np.frombuffer(data, order, width * height, header.end())
    # The last row comes first.
    return np.flipud(rows.reshape(height, width)).astype(np.float32)


def write_pfm(path: str | Path, disparity: np.ndarray) -> None:
    """Write a portable float map.

    Args:
        path: The file.
        disparity: The map, (H, W).
    """
    height, width = disparity.shape
    rows = np.flipud(disparity).astype('<f4').tobytes()
    Path(path).write_bytes(f'Pf\n{width} {height}\n-1.0\n'.encode() + rows)


def _read_png(path: Path) -> np.ndarray:
    opencv = need_package('a disparity map of 16 bits', 'cv2')
    disparity = opencv.imread(str(path), opencv.IMREAD_UNCHANGED)
    if disparity is None:
        raise UserError(
            f'{path} cannot be read as a disparity map: expected a .pfm or a '
            '16-bit .png; it is damaged, cut off, or in another format.'
        )
    if disparity.dtype != np.uint16 or disparity.ndim != 2:
        raise UserError(
            f'{path} is a picture of {disparity.dtype} values, shape '
            f'{disparity.shape}: expected one channel of 16 bits, with '
            f'disparity x {PNG_STEPS}, and 0 where it is unknown.'
        )
    result = disparity.astype(np.float32) / PNG_STEPS
    result[disparity == 0] = np.inf
    return result


def write_png(path: str | Path, disparity: np.ndarray) -> None:
    """Write a 16-bit PNG as KITTI's.

    Args:
        path: The file.
        disparity: The map, (H, W) in pixels. What is not finite becomes 0,
            unknown; the rest is at least 1/256 and below 256.

    Raises:
        OSError: It cannot be written.
    """
    known = np.isfinite(disparity)
    steps = np.where(known, disparity, 0) * PNG_STEPS
    steps = (np.rint(steps).clip(1, 65535) * known).astype(np.uint16)
    if cv2 is None:
        Image.fromarray(steps).save(path, 'PNG')
        return
    done, data = cv2.imencode('.png', steps)
    if not done:
        raise OSError(f'{path} cannot be written.')
    Path(path).write_bytes(data.tobytes())
