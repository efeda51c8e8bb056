# Copyright (c) mmseg_attn contributors.
"""Where pixels look, drawn over their picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure


@dataclass(frozen=True)
class AttentionMaps:
    """Where pixels look, on the grid of cells that the attention sees.

    Attributes:
        cells: (pixels, loops, h, w) float32. Entry ``[p, r - 1]`` says how
            much each cell of the first loop's input counts for pixel p after r
            loops; it sums to 1, or to less where zeros beside the map take
            part. An attention that runs once is one loop.
        rows: (H,) The row of cells of each row of the picture.
        columns: (W,) The same for columns.
    """

    cells: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    def on_picture(self) -> np.ndarray:
        """Spread the cells over the picture.

        Returns:
            (pixels, loops, H, W), each pixel with the weight of the cell that
            it lies in: nothing is smoothed.
        """
        return self.cells[..., self.rows[:, None], self.columns]


def draw_attention(
    picture: np.ndarray,
    pixels: Sequence[tuple[int, int]],
    maps: AttentionMaps,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draw a row for each pixel: the picture, then one map for each loop.

    Every map has its own scale, since a second loop spreads the same sum of
    weights over far more cells than the first.

    Args:
        picture: (H, W, 3) uint8, BGR.
        pixels: (x, y) of each.
        maps: As traced for these pixels.
        names: What to call each pixel.

    Returns:
        A figure, to be saved.
    """
    shown = maps.on_picture()
    loops = shown.shape[1]
    height, width = picture.shape[:2]
    side = 3.4 * min(height / width, 2)
    size = (3.9 * (loops + 1), (side + 0.9) * len(pixels))
    figure = Figure(size, dpi=150, layout='constrained')
    axes = figure.subplots(len(pixels), loops + 1, squeeze=False)
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    for row, (x, y) in enumerate(pixels):
        for column, axis in enumerate(axes[row]):
            axis.set_axis_off()
            axis.plot(x, y, 'o', ms=9, mec='black', mfc='none', mew=3.5)
            axis.plot(x, y, 'o', ms=9, mec='white', mfc='none', mew=1.8)
            if column == 0:
                axis.imshow(picture[..., ::-1])
                name = f': {names[row]}' if names else ''
                axis.set_title(f'pixel ({x}, {y}){name}', fontsize=11)
                continue
            cells = maps.cells[row, column - 1]
            axis.imshow(grey, 'gray')
            heat = axis.imshow(
                100 * shown[row, column - 1],
                'inferno',
                # The square root lets the many small weights be seen too.
                norm=PowerNorm(0.5, 0, 100 * cells.max()),
                alpha=0.65,
                interpolation='nearest',
            )
            held = f'{reach(cells)} of {cells.size} cells hold 90 %'
            after = after_loops(column, loops)
            axis.set_title(f'{after}: {held}', fontsize=11)
            bar = figure.colorbar(heat, ax=axis, fraction=0.04, pad=0.02)
            bar.set_label(f'% per cell (sum {100 * cells.sum():.4g} %)')
            bar.solids.set_alpha(1)
    return figure


def reach(cells: np.ndarray) -> int:
    """Count how few cells hold 90 % of the weight.

    Args:
        cells: (h, w), of one pixel and loop.
    """
    held = np.cumsum(np.sort(cells, axis=None)[::-1])
    return int(np.searchsorted(held, 0.9 * held[-1])) + 1


def after_loops(loop: int, loops: int) -> str:
    """Say in words after which of how many loops."""
    if loops == 1:
        return 'attention'
    return f'after {loop} loop{"s" if loop > 1 else ""}'
