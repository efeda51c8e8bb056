# Copyright (c) mmseg_attn contributors.
"""How predictions are drawn and saved: a class for each kind of them."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine.structures import InstanceData

from ..datasets.disparity_files import write_pfm, write_png
from ..visualization import draw_disparity
from ..visualization.instances import InstancePainter
from ..visualization.overlay import Legend, overlay, save_mask
from .calibration import Calibration


@dataclass(frozen=True)
class Look:
    """How results are to look.

    Attributes:
        opacity: Opacity of the colours over a picture, 0 to 1.
        score: Instances below it are left out, 0 to 1.
        legend: Whether classes are named, or a scale stands, beside a picture.
        calibration: Calibration of the pair of a stereo network, to give
            depth.
    """

    opacity: float = 0.5
    score: float = 0.3
    legend: bool = True
    calibration: Calibration | None = None


class Output(ABC):
    """Draws and saves what a model predicts.

    Args:
        meta: ``classes`` and ``palette`` of the model.
        look: How results are to look.
    """

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
    def save(self, kind: str, path: Path, found: object) -> None:
        """Write one kind of result of a prediction."""

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
    """Class maps of a segmentor: (H, W) class indices."""

    def __init__(self, meta: dict, look: Look) -> None:
        super().__init__(meta, look)
        self.legend = look.legend and Legend(meta['classes'], meta['palette'])

    @staticmethod
    def endings(look: Look) -> dict[str, str]:
        """Kinds of files beside the overlay, and their endings."""
        return {'mask': '.png'}

    def classes_in(self, found: np.ndarray) -> set[int]:
        """Numbers of the classes that were found."""
        return set(np.unique(found).tolist())

    def save(self, kind: str, path: Path, found: np.ndarray) -> None:
        """Write an index picture."""
        save_mask(path, found, self.meta['palette'])

    def draw(
        self, picture: np.ndarray, found: np.ndarray, listed: Iterable[int]
    ) -> np.ndarray:
        """Draw the classes, with the legend if one is wanted."""
        palette, opacity = self.meta['palette'], self.look.opacity
        shown = overlay(picture, found, palette, opacity)
        return self.legend.add(shown, sorted(listed)) if self.legend else shown


class InstanceOutput(Output):
    """Boxes and masks of a detector: InstanceData."""

    def __init__(self, meta: dict, look: Look) -> None:
        super().__init__(meta, look)
        self.painter = InstancePainter(meta, look.opacity)

    @staticmethod
    def endings(look: Look) -> dict[str, str]:
        """Kinds of files beside the overlay, and their endings."""
        return {'instances': '.json'}

    def _kept(self, found: InstanceData) -> InstanceData:
        return found[found.scores >= self.look.score]

    def classes_in(self, found: InstanceData) -> set[int]:
        """Numbers of the classes that were found."""
        return set(self._kept(found).labels.tolist())

    def save(self, kind: str, path: Path, found: InstanceData) -> None:
        """Write the instances as JSON, best first.

        Each has ``class``, ``score``, ``bbox`` (x, y, width, height in
        pixels) and, of a model with masks, ``segmentation`` as COCO's
        compressed run-length code.
        """
        found = self._kept(found)
        found = found[found.scores.argsort(descending=True)]
        items = []
        for index in range(len(found)):
            x1, y1, x2, y2 = found.bboxes[index].tolist()
            item = {
                'class': self.meta['classes'][int(found.labels[index])],
                'score': round(float(found.scores[index]), 4),
                'bbox': [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
            }
            if 'masks' in found:
                item['segmentation'] = _encode(found.masks[index])
            items.append(item)
        text = json.dumps(items, indent=1, ensure_ascii=False)
        path.write_text(text + '\n', encoding='utf-8')

    def draw(
        self, picture: np.ndarray, found: InstanceData, listed: Iterable[int]
    ) -> np.ndarray:
        """Draw boxes, masks, and names at the boxes: no legend."""
        return self.painter(picture, self._kept(found))


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

    def save(self, kind: str, path: Path, found: np.ndarray) -> None:
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


def _encode(mask) -> dict:
    from pycocotools import mask as codes

    code = codes.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {'size': code['size'], 'counts': code['counts'].decode('ascii')}
