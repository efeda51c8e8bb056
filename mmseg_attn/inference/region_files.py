# Copyright (c) mmseg_attn contributors.
"""Areas and polygons of a class map as JSON: plain, of COCO, of LabelMe."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..files import whole
from .regions import Region, find_regions


class Origin(NamedTuple):
    """The picture that a result is of.

    Attributes:
        name: Its path below the folder of the inputs, as COCO's files have it.
        path: The file.
    """

    name: str
    path: Path


def write_json(path: Path, content: object) -> None:
    """Write JSON in one line.

    Args:
        path: Where to.
        content: What is written.
    """
    text = json.dumps(content, ensure_ascii=False, separators=(',', ':'))
    path.write_text(text + '\n', encoding='utf-8')


def areas(mask: np.ndarray, classes: Sequence[str]) -> dict:
    """Count the pixels of the classes that occur.

    Args:
        mask: (H, W) class indices.
        classes: Names of all classes.

    Returns:
        ``width``, ``height`` and ``classes``, each with ``name``, ``pixels``
        and ``share`` of the picture.
    """
    counts = np.bincount(mask.ravel())
    return area_table(counts, *mask.shape, classes)


def area_table(
    counts: np.ndarray,
    height: int,
    width: int,
    classes: Sequence[str],
    pixel_area: float | None = None,
) -> dict:
    """Give the areas of the classes that occur.

    Args:
        counts: How often each value occurs. Those beyond the classes count
            for nothing.
        height: The picture's, in pixels.
        width: Likewise.
        classes: Names of all classes.
        pixel_area: Square metres of a pixel on the ground.

    Returns:
        ``width``, ``height`` and ``classes``, each with ``name``, ``pixels``,
        ``share`` of the pixels that have a class, and perhaps
        ``square_metres``; and ``nodata``, the number of the others, if any.
    """
    found = np.flatnonzero(counts[: len(classes)]).tolist()
    total = int(counts[: len(classes)].sum())
    items = []
    for label in found:
        pixels = int(counts[label])
        item = dict(name=classes[label], pixels=pixels, share=pixels / total)
        if pixel_area is not None:
            item['square_metres'] = round(pixels * pixel_area, 3)
        items.append(item)
    table = dict(width=width, height=height, classes=items)
    if total < height * width:
        table['nodata'] = height * width - total
    return table


def coco(
    mask: np.ndarray,
    classes: Sequence[str],
    labels: Iterable[int],
    tolerance: float,
    file_name: str,
) -> dict:
    """Give regions as a COCO file of one picture.

    Args:
        mask: (H, W) class indices.
        classes: Names of all classes; the category of class 0 has id 1.
        labels: The classes whose regions are given.
        tolerance: That of :func:`~mmseg_attn.inference.regions.find_regions`.
        file_name: The picture, from the folder of pictures.

    Returns:
        ``images``, ``categories`` and ``annotations``, these with ``area`` in
        pixels and, beyond the format, ``share`` of the picture.
    """
    height, width = mask.shape
    return dict(
        images=[dict(id=1, file_name=file_name, width=width, height=height)],
        categories=[
            dict(id=index, name=name)
            for index, name in enumerate(classes, start=1)
        ],
        annotations=[
            dict(
                id=index,
                image_id=1,
                category_id=region.label + 1,
                segmentation=[_points(region).ravel().tolist()],
                area=region.pixels,
                share=region.pixels / mask.size,
                bbox=region.box,
                iscrowd=0,
            )
            for index, region in enumerate(
                find_regions(mask, labels, tolerance), start=1
            )
        ],
    )


def labelme(
    mask: np.ndarray,
    classes: Sequence[str],
    labels: Iterable[int],
    tolerance: float,
    path: str,
) -> dict:
    """Give regions as LabelMe has them.

    Args:
        mask: (H, W) class indices.
        classes: Names of all classes.
        labels: The classes whose regions are given.
        tolerance: That of :func:`~mmseg_attn.inference.regions.find_regions`.
        path: The picture, from the folder of the file.

    Returns:
        A polygon for each region, with ``area`` in pixels and ``share`` of
        the picture beyond the format; the picture itself is not in it.
    """
    return dict(
        version='5.5.0',
        flags={},
        shapes=[
            dict(
                label=classes[region.label],
                points=_points(region).tolist(),
                group_id=None,
                description='',
                shape_type='polygon',
                flags={},
                area=region.pixels,
                share=region.pixels / mask.size,
            )
            for region in find_regions(mask, labels, tolerance)
        ],
        imagePath=path,
        imageData=None,
        imageHeight=mask.shape[0],
        imageWidth=mask.shape[1],
    )


def place_from(folder: Path, picture: Path) -> str:
    """Say where a picture is, from a folder, with slashes.

    Args:
        folder: Where one starts.
        picture: The file.
    """
    return Path(os.path.relpath(picture, folder)).as_posix()


def join_coco(parts: Iterable[Path], path: Path) -> None:
    """Put COCO files of one picture each into one of all.

    Args:
        parts: The files.
        path: The file to be written.
    """
    joined = dict(images=[], categories=[], annotations=[])
    for number, part in enumerate(parts, start=1):
        content = json.loads(part.read_text(encoding='utf-8'))
        joined['categories'] = content['categories']
        joined['images'].append({**content['images'][0], 'id': number})
        joined['annotations'] += [
            {**item, 'image_id': number} for item in content['annotations']
        ]
    for index, item in enumerate(joined['annotations'], start=1):
        item['id'] = index
    with whole(path) as partial:
        write_json(partial, joined)


def _points(region: Region) -> np.ndarray:
    return region.polygon.round(2)
