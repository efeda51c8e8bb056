# Copyright (c) mmseg_attn contributors.
"""How instances are drawn and saved."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from mmengine.structures import InstanceData

from ..inference.outputs import Look, Output
from ..inference.region_files import Origin
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


def _encode(mask) -> dict:
    from pycocotools import mask as codes

    code = codes.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {'size': code['size'], 'counts': code['counts'].decode('ascii')}
