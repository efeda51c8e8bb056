# Copyright (c) mmseg_attn contributors.
"""How predictions are drawn and saved: class maps, and instances."""

import json
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from mmengine.structures import InstanceData

from ..visualization.overlay import Legend, overlay, save_mask


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


class InstancePainter:
    """Draws boxes, names and masks with MMDetection's visualizer.

    Args:
        meta (dict): ``classes`` and ``palette``.
        opacity (float): Of the masks, 0 to 1.
    """

    def __init__(self, meta: dict, opacity: float) -> None:
        from mmdet.visualization import DetLocalVisualizer

        self.visualizer = DetLocalVisualizer(alpha=opacity)
        self.visualizer.dataset_meta = dict(
            classes=meta['classes'],
            palette=[tuple(c) for c in meta['palette']],
        )

    def __call__(
        self, picture: np.ndarray, instances: InstanceData
    ) -> np.ndarray:
        """Draw them over a picture (H, W, 3) uint8 BGR, which is kept."""
        from mmdet.structures import DetDataSample

        # Shades are drawn by lot: let them be the same for each frame.
        state = np.random.get_state()
        np.random.seed(0)
        self.visualizer.add_datasample(
            'instances',
            np.ascontiguousarray(picture[..., ::-1]),
            DetDataSample(gt_instances=instances),
            draw_pred=False,
        )
        np.random.set_state(state)
        return self.visualizer.get_image()[..., ::-1]


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
        self.classes, self.score = meta['classes'], args.score
        self.painter = InstancePainter(meta, args.opacity)

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
        return self.painter(picture, self._kept(found))


def _encode(mask) -> dict:
    from pycocotools import mask as codes

    code = codes.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {'size': code['size'], 'counts': code['counts'].decode('ascii')}
