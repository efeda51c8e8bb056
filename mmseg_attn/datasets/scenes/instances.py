# Copyright (c) mmseg_attn contributors.
"""Objects of demo scenes as instances in COCO's format."""

from collections.abc import Sequence

import numpy as np

from .render import SHAPES
from .scene import CLASSES, OBJECT_SIZE, Scene


def coco_instances(scenes: Sequence[Scene], names: Sequence[str]) -> dict:
    """Describe the objects of scenes as COCO's annotation files do.

    Boxes are (x, y, width, height) in pixels and masks run-length codes as
    lists of counts, column by column. The categories are the classes but the
    background, with the same numbers.

    Args:
        scenes: The scenes.
        names: File name of each scene's picture.

    Returns:
        The content, with 'images', 'annotations' and 'categories'.
    """
    images, annotations = [], []
    for scene, name in zip(scenes, names, strict=True):
        images.append(
            {
                'id': len(images) + 1,
                'file_name': name,
                'height': scene.size,
                'width': scene.size,
            }
        )
        for item in scene.objects:
            shape = SHAPES[item.kind]
            mask = np.zeros((scene.size, scene.size), bool)
            mask[
                item.y : item.y + OBJECT_SIZE, item.x : item.x + OBJECT_SIZE
            ] = shape
            rows, columns = (shape.any(axis).nonzero()[0] for axis in (1, 0))
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': len(images),
                    'category_id': item.label,
                    'iscrowd': 0,
                    'area': int(shape.sum()),
                    'bbox': [
                        item.x + int(columns[0]),
                        item.y + int(rows[0]),
                        int(columns[-1] - columns[0]) + 1,
                        int(rows[-1] - rows[0]) + 1,
                    ],
                    'segmentation': {
                        'size': [scene.size, scene.size],
                        'counts': _runs(mask.ravel(order='F')),
                    },
                }
            )
    return {
        'images': images,
        'annotations': annotations,
        'categories': [
            {'id': index, 'name': name}
            for index, name in enumerate(CLASSES)
            if index
        ],
    }


def _runs(flat: np.ndarray) -> list[int]:
    """Lengths of the runs, of which the first is of False, maybe empty."""
    changes = np.flatnonzero(np.diff(flat)) + 1
    edges = np.concatenate(([0], changes, [len(flat)]))
    runs = np.diff(edges).tolist()
    return [0, *runs] if flat[0] else runs
