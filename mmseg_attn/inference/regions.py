# Copyright (c) mmseg_attn contributors.
"""The regions of a class map as polygons."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import need_package
from ..pictures.opencv import cv2


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Region:
    """Pixels of one class that hang together over their sides.

    Attributes:
        label: Index of the class.
        pixels: How many there are.
        box: x, y, width and height, in pixels.
        polygon: (N, 2) x and y from the upper left corner of the picture, so
            that the first pixel reaches from 0 to 1. A hole is joined to the
            outline by a slit of no width: there and back on one line.
    """

    label: int
    pixels: int
    box: tuple[int, int, int, int]
    polygon: np.ndarray


def find_regions(
    mask: np.ndarray, labels: Iterable[int], tolerance: float = 1.0
) -> Iterator[Region]:
    """Find the regions of classes.

    The outlines run between pixels, half a pixel from the centres of those
    inside, and cut corners: filled, they give the very pixels whose centres
    they enclose.

    Args:
        mask: (H, W) class indices.
        labels: The classes, in the order wanted.
        tolerance: How far, in pixels, an outline may leave its true course to
            need fewer points; 0 keeps it.

    Yields:
        Regions, those of a class from the top of the picture to its bottom.
    """
    what = 'finding the polygons of regions'
    need_package(what, 'cv2')
    contourpy = need_package(what, 'contourpy')
    for label in labels:
        inside = (mask == label).astype(np.uint8)
        left, top, width, height = cv2.boundingRect(inside)
        part = inside[top : top + height, left : left + width]
        corner = np.array([left, top]) - 0.5
        filled = contourpy.contour_generator(
            z=np.pad(part, 1), fill_type=contourpy.FillType.OuterOffset
        ).filled(0.5, 2)
        for points, offsets in zip(*filled, strict=True):
            # The last point of a ring is its first one.
            rings = [
                points[start : end - 1]
                for start, end in zip(offsets, offsets[1:], strict=False)
            ]
            # A ring with its corners cut loses half a pixel in all.
            areas = [round(_area(ring) + 0.5) for ring in rings]
            rings = [ring + corner for ring in rings]
            low, high = rings[0].min(0), rings[0].max(0)
            yield Region(
                label=int(label),
                pixels=areas[0] - sum(areas[1:]),
                box=tuple(map(int, (*low, *(high - low)))),
                polygon=_joined([_simple(ring, tolerance) for ring in rings]),
            )


def _area(ring: np.ndarray) -> float:
    """Area within a closed line (N, 2)."""
    x, y = ring.T
    return abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _simple(ring: np.ndarray, tolerance: float) -> np.ndarray:
    ring = ring.astype(np.float32)
    found = cv2.approxPolyDP(ring, tolerance, True)[:, 0]
    if len(found) < 3 or not _area(found):  # thin or tiny: keep it
        found = cv2.approxPolyDP(ring, 0, True)[:, 0]
    return found.astype(float)


def _joined(rings: list[np.ndarray]) -> np.ndarray:
    """One line of an outline and its holes, each from its nearest point."""
    line = rings[0]
    for hole in rings[1:]:
        distances = ((line - hole[0]) ** 2).sum(1)
        near = distances.argmin()
        parts = line[: near + 1], hole, hole[:1], line[near:]
        line = np.concatenate(parts)
    return line
