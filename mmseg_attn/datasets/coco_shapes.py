# Copyright (c) mmseg_attn contributors.
"""Check the boxes and masks of annotations in COCO's format.

pycocotools reads past the end of a bad run-length code and takes all memory
for a polygon with a huge number, so that nothing bad may come to it.
"""

import math

from ..errors import UserError

# What a number may be beyond its picture: so many of its sides. Annotations
# of what is cut off at the border reach over it.
BEYOND = 10
EXPECTED = 'expected [[x, y, x, y, ...], ...] in pixels'


def check_box(what: str, box: object) -> None:
    """Refuse what is no box in pixels.

    Args:
        what: The annotation, for messages.
        box: Its ``bbox``.

    Raises:
        UserError: It is not ``[x, y, width, height]``, or in fractions of the
            picture.
    """
    if not isinstance(box, list) or len(box) != 4 or not _finite(box):
        raise UserError(
            f'{what} has the box {box!r}, expected [x, y, width, height].'
        )
    if _are_fractions(box):
        raise UserError(
            f'{what} has the box {box!r}, as fractions of the picture: '
            'expected [x, y, width, height] in pixels.'
        )


def check_shape(
    what: str, shape: object, size: tuple[int, int], outside: bool = False
) -> None:
    """Refuse a mask that pycocotools could not read.

    Args:
        what: The annotation, for messages.
        shape: Its ``segmentation``, which is not empty.
        size: Width and height of the picture.
        outside: Whether it may lie outside of the picture as a whole.

    Raises:
        UserError: It is neither polygons in pixels of the picture nor a
            run-length code of it.
    """
    if isinstance(shape, list):
        for polygon in shape:
            _check_polygon(what, polygon, size, outside)
    elif isinstance(shape, dict):
        _check_code(what, shape, size)
    else:
        text = ' (JSON inside of JSON)' if isinstance(shape, str) else ''
        raise UserError(
            f'{what} has the segmentation {_short(shape)}{text}, {EXPECTED} '
            'or a run-length code.'
        )


def has_points(shape: list) -> bool:
    """Whether a polygon of at least three points is among them."""
    return any(len(polygon) >= 6 for polygon in shape)


def _check_polygon(
    what: str, polygon: object, size: tuple[int, int], outside: bool
) -> None:
    if isinstance(polygon, list) and any(isinstance(v, list) for v in polygon):
        pairs = all(isinstance(v, list) and len(v) == 2 for v in polygon)
        raise UserError(
            f'{what} has a polygon {"of pairs" if pairs else "in a list"}: '
            f'{_short(polygon)}, {EXPECTED}.'
        )
    if not isinstance(polygon, list) or not _finite(polygon):
        raise UserError(
            f'{what} has the polygon {_short(polygon)}, {EXPECTED}.'
        )
    if len(polygon) % 2:
        raise UserError(
            f'{what} has a polygon of {len(polygon)} numbers, {EXPECTED}.'
        )
    if _are_fractions(polygon):
        raise UserError(
            f'{what} has the polygon {_short(polygon)}, as fractions of the '
            f'picture: {EXPECTED}.'
        )
    for start, side in enumerate(size):
        values = polygon[start::2]
        low, high = min(values, default=0), max(values, default=0)
        if low < -BEYOND * side or high > (1 + BEYOND) * side:
            worst = low if low < -BEYOND * side else high
            raise UserError(
                f'{what} has a polygon with the number {worst:g}, far '
                f'outside of its picture of {size[0]} x {size[1]} pixels.'
            )
        if not outside and (high < 0 or low > side):
            raise UserError(
                f'{what} has a polygon outside of its picture of {size[0]} x '
                f'{size[1]} pixels: {_short(polygon)}.'
            )


def _check_code(what: str, code: dict, size: tuple[int, int]) -> None:
    width, height = size
    own = code.get('size')
    whole = isinstance(own, list) and all(type(n) is int for n in own)
    if 'counts' not in code or not whole or own != [height, width]:
        raise UserError(
            f'{what} has a run-length code of size {own!r}, '
            f'expected counts and the size [{height}, {width}].'
        )
    counts = code['counts']
    if isinstance(counts, str):
        counts = _decoded(counts)
    if not isinstance(counts, list) or not all(
        type(count) is int and count >= 0 for count in counts
    ):
        raise UserError(
            f'{what} has the run-length code {_short(code["counts"])}, '
            "expected whole numbers of 0 or more, or COCO's text of them."
        )
    if sum(counts) != height * width:
        raise UserError(
            f'{what} has a run-length code of {sum(counts)} pixels, expected '
            f'{height} x {width} = {height * width}.'
        )


def _decoded(text: str) -> list[int] | None:
    """The counts in COCO's text, or None where it is none.

    Each character has five bits, the lowest first, and one that says that
    more follow; from the third on, counts are differences to the last but
    one.
    """
    counts, value, shift = [], 0, 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            return None
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        if len(counts) > 2:
            value += counts[-2]
        counts.append(value)
        value = shift = 0
    return None if shift else counts  # cut off


def _finite(values: list) -> bool:
    return all(
        isinstance(v, (int, float)) and math.isfinite(v) for v in values
    )


def _are_fractions(values: list) -> bool:
    """Whether they are fractions of a side: no pixel is as small as that."""
    return all(0 <= v <= 1 for v in values) and any(
        v != int(v) for v in values
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
