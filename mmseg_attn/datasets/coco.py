# Copyright (c) mmseg_attn contributors.
"""Check annotation files in COCO's format before a detector reads them."""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from ..pictures import MOST_PIXELS, picture_size
from .coco_shapes import check_box, check_shape, has_points

# What the hosts leave out of training without a word.
IGNORED = 'marked "ignore"'
OUTSIDE = 'box outside of its picture, or thinner than a pixel'
NO_AREA = 'area of 0 or less'
CROWD = 'marked as crowds ("iscrowd")'
POLYGON = 'polygons of fewer than 3 points'
OTHER = 'of a category that is not among the classes'


@dataclass
class CocoReport:
    """What an annotation file holds.

    Attributes:
        categories: Names in the order of the file, by which MMDetection
            numbers classes.
        images: Number of pictures.
        instances: Number of annotations by the name of the category.
        pictures: Number of pictures by the name of a category on them.
        left_out: Ids of the annotations that MMDetection does not train on,
            by the reason.
    """

    categories: tuple[str, ...]
    images: int
    instances: Counter = field(default_factory=Counter)
    pictures: Counter = field(default_factory=Counter)
    left_out: dict[str, list] = field(default_factory=dict)

    @property
    def usable(self) -> int:
        """Annotations that MMDetection trains on."""
        return self.instances.total() - sum(map(len, self.left_out.values()))

    def warnings(self) -> list[str]:
        """Say how many annotations are left out, and why.

        Returns:
            A line for each reason.
        """
        return [
            f'{len(ids)} annotations are left out: {reason} (ids '
            f'{", ".join(map(str, ids[:5]))}{", ..." if ids[5:] else ""})'
            for reason, ids in self.left_out.items()
        ]


def check_coco(
    path: str | Path,
    folder: str | Path | None = None,
    *,
    classes: Sequence[str] = (),
    masks: bool = False,
    ordered: bool = True,
    evaluated: bool = False,
    sizes: bool = False,
) -> CocoReport:
    """Check an annotation file of instances.

    Args:
        path: The JSON file.
        folder: Where the pictures are. None means that they are not looked
            for.
        classes: Names that must be among the categories.
        masks: Whether masks are needed.
        ordered: Whether the names must be in the order of the file, without
            which MMDetection would mix them up.
        evaluated: Whether results are compared with the annotations, of which
            pycocotools asks more.
        sizes: Whether the pictures' sizes are compared with the file's, for
            which each is opened.

    Returns:
        What there is, and what MMDetection leaves out.

    Raises:
        UserError: The file is missing or not in COCO's format, or an
            annotation cannot be used; the message names both.
    """
    content = read_coco(path)
    names = _categories(path, content['categories'])
    found = tuple(names.values())
    missing = [name for name in classes if name not in found]
    if missing:
        raise UserError(
            f'{path} has no category {", ".join(map(repr, missing[:5]))}: it '
            f'has {", ".join(map(repr, found[:10]))}. Set '
            'metainfo=dict(classes=(...)) of the dataset to these names.'
        )
    order = tuple(name for name in found if name in classes)
    if ordered and order != tuple(classes):
        raise UserError(
            f'{path} has the categories in another order than the classes of '
            'the dataset, and MMDetection numbers them by the file. Set '
            f"metainfo=dict(classes={order}), or sort the file's."
        )
    images = _images(path, content['images'], folder, sizes)
    report = CocoReport(found, len(images))
    seen, having = set(), set()
    for number, item in enumerate(content['annotations']):
        what = f'{path}, annotation {_id_of(item, number)}'
        if not isinstance(item, dict):
            raise UserError(f'{what} is {item!r}, expected an object.')
        for key in ('id', 'image_id', 'category_id'):
            if not _is_id(item.get(key)):
                raise UserError(
                    f'{what} has the {key} {item.get(key)!r}, expected a '
                    'number.'
                )
        if item['id'] in seen:
            raise UserError(f'{what}: its id is there twice.')
        seen.add(item['id'])
        if item['image_id'] not in images:
            raise UserError(
                f'{what} belongs to the picture {item["image_id"]!r}, '
                'which "images" does not have.'
            )
        if item['category_id'] not in names:
            raise UserError(
                f'{what} has the category {item["category_id"]!r}, '
                f'expected one of {", ".join(map(str, list(names)[:10]))}.'
            )
        name = names[item['category_id']]
        reason = _unusable(what, item, images[item['image_id']], masks)
        if evaluated:
            _check_evaluated(what, item)
        if classes and name not in classes:
            reason = OTHER
        if reason:
            report.left_out.setdefault(reason, []).append(item['id'])
        report.instances[name] += 1
        having.add((item['image_id'], name))
    report.pictures.update(name for _, name in having)
    return report


def check_usable(reports: Mapping[object, CocoReport]) -> None:
    """Refuse annotation files of which everything is left out.

    Args:
        reports: What each file holds, by its path.

    Raises:
        UserError: They have annotations, and none that can be used.
    """
    total = sum(report.instances.total() for report in reports.values())
    if total and not any(report.usable for report in reports.values()):
        path, report = next((p, r) for p, r in reports.items() if r.left_out)
        raise UserError(
            f'{path}: none of the {report.instances.total()} annotations can '
            f'be used: {"; ".join(report.warnings())}.'
        )


def read_coco(path: str | Path) -> dict:
    """Read an annotation file.

    Args:
        path: The JSON file.

    Returns:
        The content, with the lists 'images', 'annotations' and
        'categories'.

    Raises:
        UserError: It is missing, cut off or not in COCO's format.
    """
    try:
        content = json.loads(Path(path).read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise UserError(f'{path} does not exist.') from None
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}.') from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f'{path} is no JSON file, or cut off: {error}.'
        ) from error
    keys = ('images', 'annotations', 'categories')
    if isinstance(content, dict):
        # Lists of pictures to be tested have none.
        content.setdefault('annotations', [])
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in keys
    ):
        raise UserError(
            f"{path} is not in COCO's format: expected the lists "
            f'{", ".join(keys)}.'
        )
    return content


def _is_id(value: object) -> bool:
    return isinstance(value, (int, str))


def _is_length(value: object) -> bool:
    number = isinstance(value, (int, float)) and math.isfinite(value)
    return number and value > 0 and value == int(value)


def _id_of(item: object, number: int) -> str:
    if isinstance(item, dict) and 'id' in item:
        return f'id {item["id"]}'
    return f'number {number}'


def _categories(path: str | Path, items: list) -> dict:
    names = {}
    for item in items:
        if not (
            isinstance(item, dict)
            and _is_id(item.get('id'))
            and isinstance(item.get('name'), str)
        ):
            raise UserError(
                f'{path}: a category is {item!r}, expected id and name.'
            )
        if item['id'] in names or item['name'] in names.values():
            raise UserError(
                f'{path} has the category {item["name"]!r} (id {item["id"]}) '
                'twice.'
            )
        names[item['id']] = item['name']
    if not names:
        raise UserError(f'{path} has no categories.')
    _check_one_kind(f'{path} has categories', names)
    return names


def _check_one_kind(what: str, ids: Iterable[int | str]) -> None:
    texts = [value for value in ids if isinstance(value, str)]
    numbers = [value for value in ids if not isinstance(value, str)]
    if texts and numbers:
        # pycocotools sorts them.
        raise UserError(
            f'{what} with numbers and texts as ids, such as {numbers[0]!r} '
            f'and {texts[0]!r}: expected one kind.'
        )


def _images(
    path: str | Path, items: list, folder: str | Path | None, opened: bool
) -> dict[object, tuple[int, int]]:
    sizes = {}
    files = {}  # of each folder: one listing instead of a look for each file
    for item in items:
        keys = {'id', 'file_name', 'width', 'height'}
        if not (
            isinstance(item, dict)
            and keys <= item.keys()
            and _is_id(item['id'])
            and isinstance(item['file_name'], str)
        ):
            raise UserError(
                f'{path}: a picture is {item!r}, expected '
                f'{", ".join(sorted(keys))}.'
            )
        if item['id'] in sizes:
            raise UserError(f'{path} has the picture id {item["id"]} twice.')
        size = item['width'], item['height']
        if not all(map(_is_length, size)) or math.prod(size) > MOST_PIXELS:
            raise UserError(
                f'{path}: the picture {item["file_name"]} (id {item["id"]}) '
                f'is {size[0]!r} wide and {size[1]!r} high, expected pixels.'
            )
        sizes[item['id']] = size
        if folder is None:
            continue
        place, name = os.path.split(os.path.join(folder, item['file_name']))
        if place not in files:
            files[place] = (
                set(os.listdir(place)) if os.path.isdir(place) else set()
            )
        if name not in files[place]:
            raise UserError(
                f'{path} names the picture {item["file_name"]} (id '
                f'{item["id"]}), which is not in {folder}.'
            )
        found = picture_size(os.path.join(place, name)) if opened else size
        if found != size:
            raise UserError(
                f'{path}: the picture {item["file_name"]} (id {item["id"]}) '
                f'is {size[0]} x {size[1]} pixels there, but '
                f'{found[0]} x {found[1]} in {folder}: the annotations would '
                'not lie on it.'
            )
    _check_one_kind(f'{path} has pictures', sizes)
    return sizes


def _check_evaluated(what: str, item: dict) -> None:
    # To pycocotools 0 means that nothing matched.
    if isinstance(item['id'], str) or not 0 < abs(item['id']) < 2**53:
        raise UserError(
            f'{what}: evaluation needs ids that are numbers, and not 0.'
        )
    if item.get('iscrowd') is None:
        raise UserError(
            f'{what} has no iscrowd, which evaluation needs: 1 of a crowd, '
            'else 0.'
        )
    shape = item.get('segmentation')
    if isinstance(shape, list) and not all(
        has_points([part]) for part in shape
    ):
        # pycocotools takes four numbers for a box.
        raise UserError(
            f'{what} has a polygon of fewer than 3 points, which evaluation '
            'cannot use.'
        )


def _unusable(
    what: str, item: dict, size: tuple[int, int], masks: bool
) -> str | None:
    """Why MMDetection leaves an annotation out, or None."""
    box, area, shape = map(item.get, ('bbox', 'area', 'segmentation'))
    # The evaluation reads those too that training leaves out.
    check_box(what, box)
    if not isinstance(area, (int, float)) or not math.isfinite(area):
        raise UserError(
            f'{what} has no area in pixels'
            + (f', but {area!r}.' if area is not None else '.')
        )
    if item.get('iscrowd') not in (None, 0, 1):
        raise UserError(
            f'{what} has the iscrowd {item["iscrowd"]!r}, expected 1 of a '
            'crowd, else 0.'
        )
    if masks and not shape and not item.get('ignore'):
        raise UserError(
            f'{what} has no segmentation, which a model with masks needs.'
        )
    if item.get('ignore'):
        reason = IGNORED
    elif min(_inside(box, size)) <= 0 or min(box[2:]) < 1:
        reason = OUTSIDE
    elif area <= 0:
        reason = NO_AREA
    elif item.get('iscrowd'):
        reason = CROWD
    else:
        reason = None
    # What is outside as a whole harms nobody but by its size.
    if shape:
        check_shape(what, shape, size, outside=reason == OUTSIDE)
    if reason is None and isinstance(shape, list) and shape:
        reason = None if has_points(shape) else POLYGON
    return reason


def _inside(box: list, size: tuple[int, int]) -> list[float]:
    """Width and height of what is inside of the picture."""
    return [
        min(start + length, side) - max(start, 0)
        for start, length, side in zip(box[:2], box[2:], size, strict=True)
    ]
