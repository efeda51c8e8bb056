# Copyright (c) mmseg_attn contributors.
"""Check the class names and colours that somebody wrote for a dataset."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import UserError


def read_class_info(path: Path) -> dict:
    """Read a file that says which classes there are.

    Args:
        path: A ``dataset.json``.

    Returns:
        What it says, with ``classes``.

    Raises:
        UserError: It is missing or names no classes.
    """
    try:
        about = json.loads(path.read_text(encoding='utf-8'))
        about['classes']  # noqa: B018
    except FileNotFoundError:
        raise UserError(
            f'{path} does not exist: expected a folder with classes in '
            'dataset.json, as "python -m mmseg_attn scenes" writes it.'
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path} holds no class names ({error!r}): expected '
            '{"classes": [...], "palette": [[r, g, b], ...]}.'
        ) from error
    return about


def check_class_info(about: Mapping, where: str) -> None:
    """Refuse class names and colours that nothing could use.

    Args:
        about: With ``classes`` (names) and perhaps ``palette`` (a red, green
            and blue for each, or None) and ``groups`` (names of classes by
            the name of the group).
        where: What holds them, for the message.

    Raises:
        UserError: It says what is there and what is expected.
    """
    classes = about.get('classes')
    if not _is_list(classes) or not classes:
        raise UserError(
            f'{where}: classes is {classes!r}, expected a list of names, '
            'such as ["ground", "road"].'
        )
    for place, name in enumerate(classes):
        if not isinstance(name, str) or not name.strip():
            raise UserError(
                f'{where}: class {place} is {name!r}, expected a name in '
                'quotes.'
            )
        if name in classes[:place]:
            raise UserError(f'{where} names the class {name!r} twice.')
    palette = about.get('palette')
    if palette is not None:
        check_palette(palette, len(classes), where)
    groups = about.get('groups') or {}
    if not isinstance(groups, Mapping) or not all(
        map(_is_list, groups.values())
    ):
        raise UserError(
            f'{where}: groups is {groups!r}, expected lists of class names '
            'by the name of the group, such as {"thin": ["pole", "wire"]}.'
        )


def check_palette(palette: object, classes: int, where: str) -> None:
    """Refuse colours that are no red, green and blue for each class.

    Args:
        palette: What is to be checked; an empty list is none.
        classes: How many there are.
        where: What holds it, for the message.

    Raises:
        UserError: It says which colour, and what is expected.
    """
    if not _is_list(palette):
        raise UserError(
            f'{where}: palette is {palette!r}, expected a list of colours, '
            'such as [[0, 0, 0], [255, 128, 0]].'
        )
    for place, colour in enumerate(palette):
        right = (
            _is_list(colour)
            and len(colour) == 3
            and all(type(v) is int and 0 <= v <= 255 for v in colour)
        )
        if not right:
            raise UserError(
                f'{where}: colour {place} of the palette is {colour!r}, '
                'expected [red, green, blue] of 0 to 255, such as '
                '[255, 128, 0].'
            )
    if palette and len(palette) != classes:
        raise UserError(
            f'{where} has {len(palette)} colours in its palette for {classes} '
            'classes: expected one for each, or no palette.'
        )


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))
