# Copyright (c) mmseg_attn contributors.
"""How predicted disparities are drawn and saved, and become depth."""

import re
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..datasets.disparity_files import write_pfm, write_png
from ..errors import UserError
from ..visualization import draw_disparity


@dataclass(frozen=True)
class Calibration:
    """What turns disparities into depth.

    Args:
        focal (float): Focal length in pixels.
        baseline (float): Distance of the cameras; depth is in its unit.
        doffs (float): How far right the right camera's principal point is of
            the left one's, in pixels; added to disparities.
    """

    focal: float
    baseline: float
    doffs: float = 0.0

    def depth(self, disparity: np.ndarray) -> np.ndarray:
        """Depth of each pixel.

        Args:
            disparity (np.ndarray): In pixels.

        Returns:
            np.ndarray: float32 in the unit of the baseline; infinite where
            the disparity is 0 or less.
        """
        shift = disparity.astype(np.float64) + self.doffs
        depth = np.full(shift.shape, np.inf)
        near = shift > 0
        depth[near] = self.focal * self.baseline / shift[near]
        return depth.astype(np.float32)


def read_calibration(path: str | Path) -> Calibration:
    """Read a calibration.

    Args:
        path (str | Path): Lines of ``name=value``: ``focal`` and
            ``baseline``, or ``cam0=[f 0 cx; ...]`` and ``baseline`` as
            Middlebury's calib.txt has them, and perhaps ``doffs``.

    Returns:
        Calibration: The numbers.

    Raises:
        UserError: The file is missing, or a number is missing or not
            positive.
    """
    try:
        text = Path(path).read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path} cannot be read: {error}') from error
    number = r'([-+]?[\d.]+(?:[eE][-+]?\d+)?)'
    found = {}
    for name, start in (
        ('focal', r'(?:focal\s*=|cam0\s*=\s*\[)'),
        ('baseline', r'baseline\s*='),
        ('doffs', r'doffs\s*='),
    ):
        line = re.search(rf'^\s*{start}\s*{number}', text, re.MULTILINE)
        if line:
            found[name] = float(line[1])
    if not all(found.get(name, 0) > 0 for name in ('focal', 'baseline')):
        raise UserError(
            f'{path} gives {found or "no numbers"}: expected lines '
            'focal=PIXELS (or cam0=[f ...]) and baseline=LENGTH, both '
            'positive.'
        )
    return Calibration(**found)


class DisparityOutput:
    """Disparities of a stereo network.

    Args:
        meta (dict): Not used.
        args (Namespace): With ``calibration``, or None, and ``legend``,
            whether a scale stands beside a picture.
    """

    @staticmethod
    def endings(args: Namespace) -> dict[str, str]:
        """Kinds of results, and how their files end."""
        endings = {'pfm': '.pfm', 'png': '.png'}
        return endings | ({'depth': '.pfm'} if args.calibration else {})

    def __init__(self, meta: dict, args: Namespace) -> None:
        self.calibration, self.scale = args.calibration, args.legend

    @staticmethod
    def classes_in(disparity: np.ndarray) -> set[int]:
        """There are no classes."""
        return set()

    def save(self, kind: str, path: Path, disparity: np.ndarray) -> None:
        """Write disparities in pixels, or depth in the baseline's unit."""
        if kind == 'png':
            write_png(path, disparity)
        elif kind == 'pfm':
            write_pfm(path, disparity)
        else:
            write_pfm(path, self.calibration.depth(disparity))

    def draw(
        self,
        picture: np.ndarray,
        disparity: np.ndarray,
        listed: Iterable[int],
    ) -> np.ndarray:
        """Colour the disparities, BGR, with a scale in pixels beside them."""
        return draw_disparity(disparity, scale=self.scale)[..., ::-1]
