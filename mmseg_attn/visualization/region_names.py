# Copyright (c) mmseg_attn contributors.
"""Names of classes, written on their regions."""

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..errors import need_package
from .overlay import text_font


def write_names(
    picture: np.ndarray,
    mask: np.ndarray,
    classes: Sequence[str],
    labels: Iterable[int],
) -> np.ndarray:
    """Write the name of its class where each region is thickest.

    Regions too thin for a line of text go without, and so does a name that
    would lie over that of a larger region.

    Args:
        picture: (H, W, 3) uint8, BGR.
        mask: (H, W) class indices.
        classes: Names of all classes.
        labels: Classes whose regions are named.

    Returns:
        (H, W, 3) uint8, BGR.
    """
    height, width = mask.shape
    font, size = text_font(height)
    image = Image.fromarray(picture[..., ::-1])
    draw = ImageDraw.Draw(image)
    taken = []
    centres = _centres(mask, labels, 0.75 * size)
    for _, x, y, label in sorted(centres, reverse=True):
        name = str(classes[label])
        box = draw.textbbox((0, 0), name, font, 'mm', stroke_width=2)
        half = np.array([box[2] - box[0], box[3] - box[1]]) / 2
        # Beside the border of the picture a name moves inwards.
        x, y = np.clip((x, y), half, np.array([width, height]) - half)
        place = (*((x, y) - half), *((x, y) + half))
        if any(_meet(place, other) for other in taken):
            continue
        taken.append(place)
        draw.text(
            (x, y), name, 'white', font, 'mm', stroke_width=2, stroke_fill=0
        )
    return np.asarray(image)[..., ::-1]


def _centres(mask, labels, least):
    """Radius of each region's largest circle, its x and y, and the class."""
    cv2 = need_package('writing names on regions', 'cv2')
    for label in labels:
        inside = np.pad((mask == label).astype(np.uint8), 1)
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
        *_, regions, boxes, _ = cv2.connectedComponentsWithStats(inside)
        for region, (left, top, width, height, _) in enumerate(boxes):
            if region == 0 or min(width, height) < 2 * least:
                continue
            part = np.s_[top : top + height, left : left + width]
            own = np.where(regions[part] == region, depth[part], 0)
            y, x = np.unravel_index(own.argmax(), own.shape)
            if own[y, x] >= least:
                yield own[y, x], x + left - 1, y + top - 1, label


def _meet(one, other):
    apart = one[2] < other[0] or other[2] < one[0]
    return not (apart or one[3] < other[1] or other[3] < one[1])
