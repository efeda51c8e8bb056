# Copyright (c) mmseg_attn contributors.
"""What turns disparities into depth."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError

# Where a calibration file has its numbers.
NUMBERS = {
    'focal': r'(?:focal\s*=|cam0\s*=\s*\[)\s*([^\s;\]]*)[^\n]*',
    'baseline': r'baseline\s*=(.*)',
    'doffs': r'doffs\s*=(.*)',
    'width': r'width\s*=(.*)',
    'height': r'height\s*=(.*)',
}


@dataclass(frozen=True)
class Calibration:
    """What turns disparities into depth.

    Args:
        focal: Focal length in pixels.
        baseline: Distance of the cameras; depth is in its unit.
        doffs: How far right the right camera's principal point is of the left
            one's, in pixels; added to disparities.
        width: Width of the pictures that it is for, in pixels.
        height: Height of the pictures that it is for, in pixels.
    """

    focal: float
    baseline: float
    doffs: float = 0.0
    width: float | None = None
    height: float | None = None

    def depth(self, disparity: np.ndarray) -> np.ndarray:
        """Depth of each pixel.

        Args:
            disparity: In pixels.

        Returns:
            Float32 in the unit of the baseline; infinite where the disparity
            is 0 or less.

        Raises:
            UserError: The calibration is for pictures of another size.
        """
        size = disparity.shape[::-1]
        expected = (self.width or size[0], self.height or size[1])
        if expected != size:
            raise UserError(
                f'the calibration is for pictures of {expected[0]:g} x '
                f'{expected[1]:g} pixels, this one is {size[0]} x {size[1]}: '
                'scale focal, doffs, width and height as the pictures were.'
            )
        shift = disparity.astype(np.float64) + self.doffs
        depth = np.full(shift.shape, np.inf)
        near = shift > 0
        depth[near] = self.focal * self.baseline / shift[near]
        return depth.astype(np.float32)


def read_calibration(path: str | Path) -> Calibration:
    """Read a calibration.

    Args:
        path: Lines of ``name=value``: ``focal`` and ``baseline``, or ``cam0=[f
            0 cx; ...]`` and ``baseline`` as Middlebury's calib.txt has them,
            and perhaps ``doffs``, ``width`` and ``height``.

    Returns:
        The numbers.

    Raises:
        UserError: The file is missing, a number is none, or a needed one is
            missing or not positive.
    """
    try:
        text = Path(path).read_text(encoding='utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path} cannot be read: {error}') from error
    found = {}
    for name, pattern in NUMBERS.items():
        line = re.search(rf'^\s*{pattern}', text, re.MULTILINE)
        if line:
            found[name] = _number(path, line)
    if not all(found.get(name, 0) > 0 for name in ('focal', 'baseline')):
        raise UserError(
            f'{path} gives {found or "no numbers"}: expected lines '
            'focal=PIXELS (or cam0=[f ...]) and baseline=LENGTH, both '
            'positive.'
        )
    return Calibration(**found)


def _number(path: str | Path, line: re.Match) -> float:
    try:
        number = float(line[1])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(
            f'{path} has the line {line[0].strip()!r}, expected a number '
            'such as 1234.5.'
        )
    return number
