# Copyright (c) mmseg_attn contributors.
"""How predictions are drawn and saved: a class for each kind of them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError, near
from ..pictures.disparity_files import write_pfm, write_png
from ..visualization.disparity import draw_disparity
from ..visualization.overlay import Legend, overlay, save_mask
from ..visualization.region_names import write_names
from .calibration import Calibration
from .region_files import (
    Origin,
    areas,
    coco,
    labelme,
    place_from,
    write_json,
)
from .samples import ScoredMap

# Types of a file of scores.
SCORE_TYPES = ('uint8', 'float16')


@dataclass(frozen=True)
class Look:
    """How results are to look.

    Attributes:
        opacity: Opacity of the colours over a picture, 0 to 1.
        score: Instances below it are left out, 0 to 1.
        legend: Whether classes are named, or a scale stands, beside a picture.
        calibration: Calibration of the pair of a stereo network, to give
            depth.
        names: Whether a segmentor's regions bear the names of their classes.
        clear: Names of a segmentor's classes that are left as they are: no
            colour, no name, no polygon. ``''`` is the class called background,
            else the first one.
        tolerance: How far polygons may leave the regions' outlines, in pixels.
        score_type: Type of a segmentor's soft scores, ``'uint8'`` or
            ``'float16'``.
    """

    opacity: float = 0.5
    score: float = 0.3
    legend: bool = True
    calibration: Calibration | None = None
    names: bool = False
    clear: tuple[str, ...] = ()
    tolerance: float = 1.0
    score_type: str = 'uint8'


class Output(ABC):
    """Draws and saves what a model predicts.

    Args:
        meta: ``classes`` and ``palette`` of the model.
        look: How results are to look.

    Attributes:
        on_request: Kinds of results that are saved when they are named alone.
    """

    on_request: Sequence[str] = ()

    def __init__(self, meta: dict, look: Look) -> None:
        self.meta, self.look = meta, look

    @staticmethod
    @abstractmethod
    def endings(look: Look) -> dict[str, str]:
        """Name the kinds of results, and how their files end."""

    @abstractmethod
    def classes_in(self, found: object) -> set[int]:
        """Find the indices of the classes that occur in a prediction."""

    @abstractmethod
    def save(
        self, kind: str, path: Path, found: object, origin: Origin
    ) -> None:
        """Write one kind of result of a prediction.

        Args:
            kind: One of :meth:`endings`.
            path: The file.
            found: The prediction.
            origin: The picture that it is of.
        """

    @abstractmethod
    def draw(
        self, picture: np.ndarray, found: object, listed: Iterable[int]
    ) -> np.ndarray:
        """Draw a prediction over its picture.

        Args:
            picture: (H, W, 3) uint8 BGR.
            found: The prediction.
            listed: Indices of the classes to be named beside it.

        Returns:
            (H, W or more, 3) uint8 BGR.
        """


class MaskOutput(Output):
    """Class maps of a segmentor: (H, W) class indices, perhaps with scores."""

    on_request = ('scores', 'areas', 'coco', 'labelme', 'geotiff')

    def __init__(self, meta: dict, look: Look) -> None:
        super().__init__(meta, look)
        self.legend = look.legend and Legend(meta['classes'], meta['palette'])
        self.clear = sorted({self._index(name) for name in look.clear})

    def _index(self, name: str) -> int:
        names = list(map(str, self.meta['classes']))
        if not name:
            lower = [text.lower() for text in names]
            return lower.index('background') if 'background' in lower else 0
        if name not in names:
            raise UserError(
                f'the class to be left clear (--clear), {name!r}, is none of '
                f'{", ".join(names)}.{near(name, names)}'
            )
        return names.index(name)

    @staticmethod
    def endings(look: Look) -> dict[str, str]:
        """Kinds of files beside the overlay, and their endings."""
        json_files = dict.fromkeys(('areas', 'coco', 'labelme'), '.json')
        images = {'mask': '.png', 'scores': '.npz'}
        return images | json_files | {'geotiff': '.tif'}

    def classes_in(self, found: np.ndarray | ScoredMap) -> set[int]:
        """Numbers of the classes that were found, but for clear ones."""
        labels = set(np.unique(_mask_of(found)).tolist())
        labels &= set(range(len(self.meta['classes'])))
        return labels - set(self.clear)

    def save(
        self,
        kind: str,
        path: Path,
        found: np.ndarray | ScoredMap,
        origin: Origin,
    ) -> None:
        """Write an index picture, scores, areas or polygons."""
        if kind == 'geotiff':
            raise UserError(
                '--save geotiff is for pictures in windows: add --slide.'
            )
        mask, classes = _mask_of(found), self.meta['classes']
        shapes = sorted(self.classes_in(found)), self.look.tolerance
        if kind == 'mask':
            save_mask(path, mask, self.meta['palette'])
        elif kind == 'scores':
            save_scores(path, found.scores, self.look.score_type, classes)
        elif kind == 'areas':
            write_json(path, areas(mask, classes))
        elif kind == 'coco':
            write_json(path, coco(mask, classes, *shapes, origin.name))
        else:
            picture = place_from(path.parent, origin.path)
            write_json(path, labelme(mask, classes, *shapes, picture))

    def draw(
        self,
        picture: np.ndarray,
        found: np.ndarray | ScoredMap,
        listed: Iterable[int],
    ) -> np.ndarray:
        """Draw the classes, with names or the legend if they are wanted."""
        mask, look = _mask_of(found), self.look
        shown = overlay(
            picture, mask, self.meta['palette'], look.opacity, self.clear
        )
        if look.names:
            labels = self.classes_in(found)
            shown = write_names(shown, mask, self.meta['classes'], labels)
        return self.legend.add(shown, sorted(listed)) if self.legend else shown


class DisparityOutput(Output):
    """Disparities of a stereo network: (H, W) float32 in pixels."""

    @staticmethod
    def endings(look: Look) -> dict[str, str]:
        """Kinds of files beside the overlay, and their endings."""
        endings = {'pfm': '.pfm', 'png': '.png'}
        return endings | ({'depth': '.pfm'} if look.calibration else {})

    def classes_in(self, found: np.ndarray) -> set[int]:
        """Numbers of the classes that were found."""
        return set()

    def save(
        self, kind: str, path: Path, found: np.ndarray, origin: Origin
    ) -> None:
        """Write disparities in pixels, or depth in the baseline's unit."""
        if kind == 'png':
            write_png(path, found)
        elif kind == 'pfm':
            write_pfm(path, found)
        else:
            write_pfm(path, self.look.calibration.depth(found))

    def draw(
        self, picture: np.ndarray, found: np.ndarray, listed: Iterable[int]
    ) -> np.ndarray:
        """Colour the disparities, with a scale in pixels beside them."""
        return draw_disparity(found, scale=self.look.legend)[..., ::-1]


def save_scores(
    path: str | Path, scores: np.ndarray, dtype: str, classes: Sequence[str]
) -> None:
    """Save the scores of all classes.

    Args:
        path: Where to, ending in ``.npz``.
        scores: (classes, H, W) of 0 to 1.
        dtype: ``'uint8'``, of which 255 is a score of 1, or ``'float16'``.
        classes: Names of the classes.
    """
    if dtype == 'uint8':
        scores = np.rint(255 * scores)
    names = np.array(list(map(str, classes)))
    np.savez_compressed(path, scores=scores.astype(dtype), classes=names)


def _mask_of(found: np.ndarray | ScoredMap) -> np.ndarray:
    return found.mask if isinstance(found, ScoredMap) else found
