# Copyright (c) mmseg_attn contributors.
"""Pictures with their truth, prediction and errors, as a sheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .overlay import paint

# Classes in a line of the legend.
PER_LINE = 6


@dataclass(frozen=True, eq=False)  # arrays do not compare
class PictureScore:
    """How well one picture is segmented.

    Attributes:
        path: The picture.
        truth: (H, W) class indices.
        prediction: (H, W) class indices.
        intersection: (classes,) Pixels of both.
        union: (classes,) Pixels of either; ignored ones count for nothing.
    """

    path: str
    truth: np.ndarray
    prediction: np.ndarray
    intersection: np.ndarray
    union: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        """(classes,) In per cent; NaN for a class in neither map."""
        with np.errstate(invalid='ignore'):
            return 100 * self.intersection / self.union

    @property
    def miou(self) -> float:
        """Mean over the classes in either map; NaN if nothing counts."""
        present = self.iou[self.union > 0]
        return float(present.mean()) if len(present) else float('nan')

    @property
    def worst_class(self) -> int:
        """Index of the class of the lowest IoU, of the largest of these."""
        iou = np.where(self.union > 0, self.iou, np.inf)
        return int(np.lexsort((-self.union, iou))[0])


def draw_worst(
    scores: Sequence[PictureScore],
    pictures: Sequence[np.ndarray],
    *,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    ignore_index: int = 255,
) -> Figure:
    """Draw pictures, truth, prediction and errors, a row for each picture.

    Args:
        scores: Scores of the pictures to be drawn.
        pictures: (H, W, 3) uint8 BGR of each.
        classes: Names of the classes.
        palette: (red, green, blue) of each class.
        ignore_index: The label of pixels that count for nothing.

    Returns:
        A figure, to be saved.
    """
    sides = [min(s.truth.shape[0] / s.truth.shape[1], 1.5) for s in scores]
    present = np.sum([score.union for score in scores], axis=0).nonzero()[0]
    lines = -(-len(present) // PER_LINE)
    width = 2.6
    figure = Figure(
        (4 * width, width * sum(sides) + 0.35 * len(scores) + 0.3 * lines),
        dpi=150,
        layout='constrained',
        facecolor='white',
    )
    axes = figure.subplots(len(scores), 4, squeeze=False, height_ratios=sides)
    for row, score, picture in zip(axes, scores, pictures, strict=True):
        ignored = score.truth == ignore_index
        shown = [
            picture[..., ::-1],
            paint(np.where(ignored, 255, score.truth), palette),
            paint(score.prediction, palette),
            _errors(picture, score, ignored),
        ]
        worst = score.worst_class
        titles = [
            _short(Path(score.path).name, 34),
            'truth',
            f'prediction, mIoU {score.miou:.1f}',
            f'errors; {_short(classes[worst], 18)} {score.iou[worst]:.1f}',
        ]
        for axis, image, title in zip(row, shown, titles, strict=True):
            axis.imshow(image, interpolation='nearest')
            axis.set_title(title, fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
    figure.legend(
        handles=[
            Patch(
                facecolor=np.array(palette[index]) / 255,
                edgecolor='grey',
                label=_short(classes[index], 22),
            )
            for index in present
        ],
        loc='outside lower center',
        ncols=min(PER_LINE, len(present)),
        frameon=False,
        fontsize=9,
    )
    return figure


def _errors(
    picture: np.ndarray, score: PictureScore, ignored: np.ndarray
) -> np.ndarray:
    """The picture in grey, wrong pixels red, ignored ones white."""
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    shown = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    wrong = (score.prediction != score.truth) & ~ignored
    shown[wrong] = 0.35 * shown[wrong] + 0.65 * np.array([230, 30, 30])
    shown[ignored] = 255
    return shown


def _short(text: str, length: int) -> str:
    text = str(text)
    return text if len(text) <= length else f'{text[: length - 1]}…'
