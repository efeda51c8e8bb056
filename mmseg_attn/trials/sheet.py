# Copyright (c) mmseg_attn contributors.
"""One picture that shows what the models of the demo do."""

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patches import Patch
from PIL import Image

from ..apis.loading import load_model
from ..apis.predictors import Segmenter
from ..apis.tracing import attention_maps
from ..files import whole
from ..visualization.overlay import paint, with_ignored
from .trial import Data

ROWS = 4
# Most classes in a line of the legend, and longest name in one line of it.
PER_LINE, LONGEST_NAME = 7, 40
# Inches of a column, and of the space around a legend.
WIDTH, MARGIN = 2.05, 0.25


def draw_sheet(
    path: Path,
    data: Data,
    models: dict[str, tuple[Path, Path]],
    scores: dict[str, float],
) -> None:
    """Draw pictures, truth, predictions and attention as one PNG file.

    Args:
        path: File to write.
        data: The dataset; some of its validation pictures are shown.
        models: Config and checkpoint of each model. The attention of the last
            one is shown.
        scores: mIoU of each model, in per cent.
    """
    about = json.loads(
        (data.folder / 'dataset.json').read_text(encoding='utf-8')
    )
    palette = np.array(about['palette'], np.uint8)
    files = data.validation_files()
    scenes = 'two hops' in about['groups']
    if scenes:
        # Of two layouts the first two variants, between which the colour of
        # one flag changes.
        chosen = [0, 1, 4, 5]
    else:
        chosen = np.linspace(0, len(files) - 1, min(ROWS, len(files)))
        chosen = np.unique(chosen.astype(int))
    files = [files[i] for i in chosen]
    pictures = [cv2.imread(str(picture)) for picture, _ in files]
    masks = [np.array(Image.open(mask)) for _, mask in files]
    if scenes:
        # The ring of that flag.
        hard = [about['classes'].index(c) for c in about['groups']['two hops']]
        pixels = [
            _deepest((mask != masks[i ^ 1]) & np.isin(mask, hard))
            for i, mask in enumerate(masks)
        ]
        caption = (
            'A box belongs to the flag in its row or column, a ring to the '
            'flag of the box in its own. From row to row one flag changes.'
        )
    else:
        pixels = [_deepest(~np.isin(m, _frequent(m))) for m in masks]
        caption = (
            'Validation pictures, what each model makes of them, and where '
            f'{list(models)[-1]} looks'
        )
    columns = {'picture': [p[..., ::-1] for p in pictures]}
    columns['truth'] = [paint(mask, palette) for mask in masks]
    for name, (config, checkpoint) in models.items():
        model = load_model(str(config), str(checkpoint))
        segment = Segmenter(model)
        columns[f'{name}\nmIoU {scores[name]:.1f}'] = [
            paint(segment([segment.prepare(picture)])[0], palette)
            for picture in pictures
        ]
    maps = [
        attention_maps(model, picture, [pixel])
        for picture, pixel in zip(pictures, pixels, strict=True)
    ]
    loops = maps[0].cells.shape[1]
    titles = list(columns)
    for loop in range(loops):
        plural = 's' if loop else ''
        titles.append(
            f'where the marked pixel\nlooks in {loop + 1} loop{plural}'
        )
    figure, axes = make_grid(titles, pictures, about, masks, caption)
    for row, (picture, pixel) in enumerate(zip(pictures, pixels, strict=True)):
        for column, shown in enumerate(columns.values()):
            axes[row, column].imshow(shown[row], interpolation='nearest')
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        looks = maps[row].on_picture()[0]
        for loop in range(loops):
            axis = axes[row, len(columns) + loop]
            axis.imshow(grey, 'gray', vmin=0, vmax=255)
            axis.imshow(looks[loop], 'inferno', alpha=0.75)
        for axis in [axes[row, 0], *axes[row, len(columns) :]]:
            _mark(axis, pixel)
    with whole(path) as partial:
        figure.savefig(partial)


def make_grid(
    titles: Sequence[str],
    pictures: Sequence[np.ndarray],
    about: dict,
    masks: Sequence[np.ndarray],
    caption: str,
) -> tuple[Figure, np.ndarray]:
    """Lay out a sheet with a row for each picture, and a legend below.

    Args:
        titles: What stands above the columns.
        pictures: (H, W, 3); they are not drawn.
        about: What ``dataset.json`` says.
        masks: Their labels. If they ignore a pixel, the legend says so.
        caption: Title of the sheet.

    Returns:
        The figure, and its empty axes by row and column.
    """
    names, palette = list(about['classes']), about['palette']
    if any(len(names) <= mask.max() for mask in masks):
        names, palette = with_ignored(about)
    sides = [min(p.shape[0] / p.shape[1], 1.5) for p in pictures]
    width = WIDTH * len(titles)
    figure = Figure(
        (width, 1), dpi=150, layout='constrained', facecolor='white'
    )
    legend = _legend(figure, names, palette)
    height = legend.get_window_extent().height / figure.dpi + MARGIN
    figure.set_size_inches(width, WIDTH * sum(sides) + height + 1)
    axes = figure.subplots(
        *(len(pictures), len(titles)), squeeze=False, height_ratios=sides
    )
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=10)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.suptitle(caption, fontsize=12, wrap=True)
    return figure, axes


def _legend(
    figure: Figure, names: Sequence[str], palette: Sequence[Sequence[int]]
) -> Legend:
    """Add a legend of as many columns as the figure is wide."""
    handles = [
        Patch(
            facecolor=np.array(colour) / 255,
            edgecolor='grey',
            label=textwrap.fill(name, LONGEST_NAME),
        )
        for name, colour in zip(names, palette, strict=True)
    ]
    for columns in range(min(PER_LINE, len(names)), 0, -1):
        legend = figure.legend(
            handles=handles,
            loc='outside lower center',
            ncols=columns,
            frameon=False,
            fontsize=10,
        )
        wide = legend.get_window_extent().width > figure.bbox.width
        if columns == 1 or not wide:
            return legend
        legend.remove()


def _frequent(mask: np.ndarray) -> list[int]:
    """The largest class, if there is another, and the ignored pixels."""
    labels, counts = np.unique(mask[mask != 255], return_counts=True)
    largest = labels[counts.argsort()[1:][-1:]]
    return [255, *largest.tolist()]


def _deepest(inside: np.ndarray) -> tuple[int, int]:
    """Find the pixel (x, y) farthest from what is not inside."""
    padded = cv2.copyMakeBorder(
        inside.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT
    )
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return int(x), int(y)


def _mark(axis: Axes, pixel: tuple[int, int]) -> None:
    for colour, width in (('black', 3.2), ('white', 1.6)):
        axis.plot(*pixel, 'o', ms=8, mec=colour, mfc='none', mew=width)
