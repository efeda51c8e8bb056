# Copyright (c) mmseg_attn contributors.
"""Where the windows of a picture lie, and what their pixels count."""

from dataclasses import dataclass

import numpy as np

from ..errors import UserError

# How windows that overlap are put together.
BLENDS = ('average', 'centre')


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Cuts:
    """One side of a picture, cut into windows.

    Attributes:
        length: Pixels of the side.
        size: Pixels of a window.
        starts: First pixel of each window, from the first to the last one.
        weights: (size,) what each pixel of a window counts.
        total: (length,) what all windows of a pixel count together.
    """

    length: int
    size: int
    starts: tuple[int, ...]
    weights: np.ndarray
    total: np.ndarray

    def end(self, start: int) -> int:
        """Where a window ends, which a picture to be padded cuts off."""
        return min(start + self.size, self.length)


@dataclass(frozen=True)
class Windows:
    """How a picture is cut into windows, and how these are put together.

    They lie as MMSegmentation's ``slide_inference`` lays them: the last ones
    are moved back so that they end with the picture.

    Attributes:
        size: Height and width of a window, in pixels.
        stride: Steps from one to the next, likewise, no larger.
        blend: What a pixel is given that several windows see: ``'average'``
            of their logits, as MMSegmentation does, or ``'centre'``, where a
            window counts the less the nearer the pixel is to its border.
        multiple: Sides that the network takes are multiples of this: what a
            picture lacks at its right and lower border is filled up by the
            network's preprocessing, of windows as of whole pictures.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    blend: str = 'average'
    multiple: int = 1

    def __post_init__(self) -> None:
        if self.blend not in BLENDS:
            raise UserError(
                f'blend (--blend) is {self.blend!r}, expected '
                f'{" or ".join(BLENDS)}.'
            )

    def cut(self, height: int, width: int) -> tuple[Cuts, Cuts]:
        """Cut a picture.

        Args:
            height: Its height, in pixels.
            width: Its width, in pixels.

        Returns:
            Its rows and its columns.
        """
        sides = zip((height, width), self.size, self.stride, strict=True)
        return tuple(self._cut(*side) for side in sides)

    def _cut(self, length: int, size: int, stride: int) -> Cuts:
        padded = -(-length // self.multiple) * self.multiple
        size = min(size, padded)
        count = -(-(padded - size) // stride) + 1
        starts = tuple(min(i * stride, padded - size) for i in range(count))
        weights = np.ones(size, np.float32)
        if self.blend == 'centre':
            # A tent, from half a pixel's share at the borders to 1.
            from_start = np.arange(size, dtype=np.float32) + 0.5
            weights = np.minimum(from_start, size - from_start) * (2 / size)
            weights = weights.astype(np.float32)
        total = np.zeros(padded, np.float32)
        for start in starts:
            total[start : start + size] += weights
        return Cuts(length, size, starts, weights, total[:length])
