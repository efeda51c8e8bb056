# Copyright (c) mmseg_attn contributors.
"""Where pixels look, drawn over their picture."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

# Panels beside each other.
PER_LINE = 4


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
        layers: What each loop's layer is called, such as ``'layer3.2'``.
        notes: What one has to know of the layers to read their maps.
    """

    cells: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    layers: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def titles(self) -> list[str]:
        """Say in words through which loops or layers each map goes.

        Returns:
            A title for each loop.
        """
        return loop_titles(self.layers)

    def on_picture(self) -> np.ndarray:
        """Spread the cells over the picture.

        Returns:
            (pixels, loops, H, W), each pixel with the weight of the cell that
            it lies in: nothing is smoothed.
        """
        return self.cells[..., self.rows[:, None], self.columns]


def loop_titles(layers: Sequence[str]) -> list[str]:
    """Say in words through which loops or layers maps go.

    Args:
        layers: What each loop's layer is called.

    Returns:
        A title for each loop.
    """
    if len(layers) == 1:
        return [f'attention of {layers[0]}']
    if len(set(layers)) == 1:
        numbers = range(1, len(layers) + 1)
        return [f'after {n} loop{"s" if n > 1 else ""}' for n in numbers]
    titles = []
    for index, layer in enumerate(layers):
        title = layer
        if layers.count(layer) > 1:
            loop = layers[: index + 1].count(layer)
            title = f'{layer}, loop {loop}'
        if index == 1:
            title += f' through {layers[0]}'
        elif index > 1:
            title += f' through the {index} before'
        titles.append(title)
    return titles


def draw_attention(
    picture: np.ndarray,
    pixels: Sequence[tuple[int, int]],
    maps: AttentionMaps,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draw for each pixel the picture, then one map for each loop.

    Every map has its own scale, since a second loop spreads the same sum of
    weights over far more cells than the first. What is to be known of the
    layers stands below.

    Args:
        picture: (H, W, 3) uint8, BGR.
        pixels: (x, y) of each.
        maps: As traced for these pixels.
        names: What to call each pixel.

    Returns:
        A figure, to be saved.
    """
    shown, titles = maps.on_picture(), maps.titles()
    height, width = picture.shape[:2]
    columns = min(len(titles) + 1, PER_LINE)
    lines = -(-(len(titles) + 1) // columns)
    side = 3.2 * min(height / width, 2)
    titles = [title.replace(' through ', '\nthrough ') for title in titles]
    above = 0.55 + 0.2 * max(title.count('\n') + 1 for title in titles)
    notes = [textwrap.fill(note, 52 * columns) for note in maps.notes]
    below = 0.2 * sum(note.count('\n') + 2 for note in notes)
    rows = lines * len(pixels)
    size = (3.9 * columns, (side + above) * rows + below)
    figure = Figure(size, dpi=150, layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False)
    axes = axes.reshape(len(pixels), -1)
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    for row, (x, y) in enumerate(pixels):
        for axis in axes[row]:
            axis.set_axis_off()
        for column, axis in enumerate(axes[row, : len(titles) + 1]):
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
            title = f'{titles[column - 1]}\n{held}'
            axis.set_title(title, fontsize=11)
            bar = figure.colorbar(heat, ax=axis, fraction=0.04, pad=0.02)
            bar.set_label(f'% per cell (sum {100 * cells.sum():.4g} %)')
            bar.solids.set_alpha(1)
    if notes:
        figure.supxlabel('\n'.join(notes), x=0.01, ha='left', fontsize=10)
    return figure


def reach(cells: np.ndarray) -> int:
    """Count how few cells hold 90 % of the weight.

    Args:
        cells: (h, w), of one pixel and loop.
    """
    held = np.cumsum(np.sort(cells, axis=None)[::-1])
    return int(np.searchsorted(held, 0.9 * held[-1])) + 1
