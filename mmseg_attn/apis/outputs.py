# Copyright (c) mmseg_attn contributors.
"""How predictions are drawn and saved: class maps, and instances."""

import json
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from mmengine.structures import InstanceData

from .overlay import Legend, overlay, save_mask


class MaskOutput:
    """Class maps of a segmentor.

    Args:
        meta (dict): ``classes`` and ``palette`` of the model.
        args (Namespace): With ``opacity`` of the colours and ``legend``,
            whether the classes are named beside a picture.
    """

    @staticmethod
    def endings(args: Namespace) -> dict[str, str]:
        """Kinds of results, and how their files end."""
        return {'mask': '.png'}

    def __init__(self, meta: dict, args: Namespace) -> None:
        self.palette = meta['palette']
        self.opacity = args.opacity
        self.legend = (
            Legend(meta['classes'], self.palette) if args.legend else None
        )

    @staticmethod
    def classes_in(mask: np.ndarray) -> set[int]:
        """Indices of the classes that occur."""
        return set(np.unique(mask).tolist())

    def save(self, kind: str, path: Path, mask: np.ndarray) -> None:
        """Write an index picture."""
        save_mask(path, mask, self.palette)

    def draw(
        self, picture: np.ndarray, mask: np.ndarray, listed: Iterable[int]
    ) -> np.ndarray:
        """Colour a picture (H, W, 3) uint8 BGR, with a legend of classes."""
        shown = overlay(picture, mask, self.palette, self.opacity)
        return self.legend.add(shown, sorted(listed)) if self.legend else shown


class InstanceOutput:
    """Boxes and masks of a detector.

    Args:
        meta (dict): ``classes`` and ``palette`` of the model.
        args (Namespace): With ``opacity`` of the masks and ``score``, below
            which instances are left out.
    """

    @staticmethod
    def endings(args: Namespace) -> dict[str, str]:
        """Kinds of results, and how their files end."""
        return {'instances': '.json'}

    def __init__(self, meta: dict, args: Namespace) -> None:
        from mmdet.visualization import DetLocalVisualizer

        self.classes, self.score = meta['classes'], args.score
        self.visualizer = DetLocalVisualizer(alpha=args.opacity)
        self.visualizer.dataset_meta = dict(
            classes=self.classes, palette=[tuple(c) for c in meta['palette']]
        )

    def _kept(self, found: InstanceData) -> InstanceData:
        return found[found.scores >= self.score]

    def classes_in(self, found: InstanceData) -> set[int]:
        """Indices of the classes that occur."""
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
                'class': self.classes[int(found.labels[index])],
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
        """Draw boxes, names and masks over a picture, BGR as it came.

        Names stand at the boxes: there is no legend, so ``listed`` is not
        used.
        """
        from mmdet.structures import DetDataSample

        sample = DetDataSample(pred_instances=self._kept(found))
        self.visualizer.add_datasample(
            'prediction',
            np.ascontiguousarray(picture[..., ::-1]),
            sample,
            draw_gt=False,
            pred_score_thr=0,
        )
        return self.visualizer.get_image()[..., ::-1]


def _encode(mask) -> dict:
    from pycocotools import mask as codes

    code = codes.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {'size': code['size'], 'counts': code['counts'].decode('ascii')}
