# Copyright (c) mmseg_attn contributors.
"""How instances and disparities are drawn and saved."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from mmengine.structures import InstanceData

from ..datasets.disparity_files import write_pfm, write_png
from ..inference.outputs import Look, Output
from ..inference.region_files import Origin
from ..visualization.disparity import draw_disparity
from ..visualization.instances import InstancePainter


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

    def save(
        self, kind: str, path: Path, found: InstanceData, origin: Origin
    ) -> None:
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


def _encode(mask) -> dict:
    from pycocotools import mask as codes

    code = codes.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {'size': code['size'], 'counts': code['counts'].decode('ascii')}
