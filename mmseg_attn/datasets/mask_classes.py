# Copyright (c) mmseg_attn contributors.
"""Find out which classes masks have."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import UserError
from .class_info import check_class_info, read_class_info
from .label_survey import LabelSurvey
from .masks import Colour, PaletteCheck

IGNORED = 255
MOST_CLASSES = 64


@dataclass
class MaskClasses:
    """The classes of masks.

    Attributes:
        values: What stands for each class in a mask, as of
            :func:`~mmseg_attn.datasets.masks.read_mask`.
        names: Their names.
        palette: Their colours in the masks, RGB; None where they have none
            that tell them apart.
        ignored: Whether 255 marks pixels that count for nothing.
        grey: Whether the masks are in RGB without a colour in them, and their
            values are those of one channel.
    """

    values: list[int]
    names: list[str]
    palette: list[list[int]] | None
    ignored: bool
    grey: bool

    def indices(self, labels: np.ndarray) -> np.ndarray:
        """Turn the values of a mask into class indices.

        Args:
            labels: From :func:`~mmseg_attn.datasets.masks.read_mask`.

        Returns:
            The same in uint8, 255 where there is no class.
        """
        if self.grey:
            labels = -1 - labels & 255
        found = np.full(labels.shape, IGNORED, np.uint8)
        for index, value in enumerate(self.values):
            found[labels == value] = index
        return found

    def named(self, about: dict, where: str) -> 'MaskClasses':
        """Give the classes the names of a list.

        Args:
            about: ``classes`` and, for masks in colours, ``palette``, as in
                a ``dataset.json``.
            where: What to call it.

        Returns:
            All classes of the list, in its order, also those that no mask
            has.

        Raises:
            UserError: A mask has a value that is none of them.
        """
        values = self.values_of(about, where)
        names = [str(name) for name in about['classes']]
        for value in self.values:
            if value not in values:
                raise UserError(
                    _no_class('the masks hold', value, names, where)
                )
        palette = [list(c)[:3] for c in about.get('palette') or []]
        own = self.palette if len(self.values) == len(names) else None
        return replace(
            self, values=values, names=names, palette=palette or own
        )

    def values_of(self, about: dict, where: str) -> list[int]:
        """Tell what stands for each class of a list in masks like these.

        Args:
            about: The list, as of :meth:`named`.
            where: What to call it.

        Returns:
            A value for each class, in the list's order.

        Raises:
            UserError: The list cannot be used, or says no colours.
        """
        check_class_info(about, where)
        palette = [list(c)[:3] for c in about.get('palette') or []]
        if self.values[0] < 0:
            if not palette:
                raise UserError(
                    f'the masks show classes in colours, and {where} does not '
                    'say which colour is which class: write a dataset.json '
                    'with {"classes": [...], "palette": [[r, g, b], ...]}.'
                )
            codes = np.array(palette) @ np.array([1 << 16, 1 << 8, 1])
            return (-1 - codes).tolist()
        count = len(about['classes'])
        if self.values == [0, IGNORED] and count == 2:
            return self.values  # black and white
        return list(range(count))


class MaskSurvey:
    """Collects the values of masks, mask by mask."""

    def __init__(self) -> None:
        self._check = PaletteCheck(IGNORED)
        self._found: list[tuple[Path, np.ndarray]] = []

    def add(
        self, path: Path, labels: np.ndarray, palette: list[Colour]
    ) -> None:
        """Take in a mask.

        Args:
            path: The file.
            labels: From :func:`~mmseg_attn.datasets.masks.read_mask`.
            palette: From the same.

        Raises:
            UserError: Its palette contradicts those before it.
        """
        values = np.unique(labels)
        if palette:
            self._check(path, values, palette)
        self._found.append((path, values))

    def classes(self) -> MaskClasses:
        """Tell the classes of all masks that were taken in.

        Returns:
            They are the values that occur; 255 is none, unless there are 0
            and 255 alone.

        Raises:
            UserError: The masks cannot be understood.
        """
        in_rgb = [path for path, values in self._found if values[0] < 0]
        if in_rgb and len(in_rgb) < len(self._found):
            index = next(path for path, v in self._found if v[0] >= 0)
            raise UserError(
                f'the mask {in_rgb[0]} is in RGB and {index} is not: '
                'expected all masks in the same format.'
            )
        found = np.unique(np.concatenate([v for _, v in self._found]))
        rgb = _rgb(found)
        grey = bool(in_rgb) and (rgb == rgb[:, :1]).all()
        if grey:
            self._found = [(p, -1 - v & 255) for p, v in self._found]
            found = np.unique(rgb[:, 0])
        found = found.tolist()
        if len(found) > MOST_CLASSES + 1:
            raise UserError(
                f'the masks hold {len(found)} different values, expected at '
                f'most {MOST_CLASSES} classes. Masks must hold one value for '
                'a class: photographs, JPEG files and smoothed edges do not.'
            )
        # Black and white is a drawing of two classes.
        ignored = IGNORED in found and found != [0, IGNORED]
        if found == [0, 1, IGNORED]:
            self._refuse_two_kinds()
        values = [v for v in found if not (ignored and v == IGNORED)]
        if len(values) < 2:
            raise UserError(
                f'the masks hold one class only (the value '
                f'{values or found}): expected at least two, of which one '
                'may be background.'
            )
        palette = _palette(values, self._found[0][0])
        return MaskClasses(values, _names(values), palette, ignored, grey)

    def strangers(self, about: dict, where: str) -> list[str]:
        """Name each mask with a value that is no class of a list.

        Args:
            about: The list, as of :meth:`MaskClasses.named`.
            where: What to call it.

        Returns:
            A line each.

        Raises:
            UserError: The masks or the list cannot be understood.
        """
        found = self.classes()
        known = found.values_of(about, where) + [IGNORED] * found.ignored
        names = [str(name) for name in about['classes']]
        return [
            _no_class(f'{path} holds', value, names, where)
            for path, values in self._found
            for value in values[~np.isin(values, known)][:1].tolist()
        ]

    def _refuse_two_kinds(self) -> None:
        """Refuse masks of which some draw the object with 1, some with 255."""
        survey = LabelSurvey(('background', 'foreground'), IGNORED)
        for path, values in self._found:
            survey.add(path, values)
        for line in survey.two_kinds():
            raise UserError(line)


def find_class_list(
    masks: Path, given: dict | None
) -> tuple[dict | None, str]:
    """Find the list that says what masks show.

    Args:
        masks: Folder of masks. A ``dataset.json`` is in it, or beside it.
        given: The content of such a file, from the user, instead.

    Returns:
        ``classes`` and what else is said, None where nothing is; and what to
        call it.

    Raises:
        UserError: The file names no classes.
    """
    if given is not None:
        return given, '--classes'
    for folder in (masks, masks.parent):
        path = folder / 'dataset.json'
        if path.is_file():
            return read_class_info(path), str(path)
    return None, ''


def read_class_names(text: str) -> dict:
    """Read the classes of a command's option.

    Args:
        text: Names with commas between them, or a file with one in each line
            or with a ``dataset.json``'s content.

    Returns:
        ``classes``, and what else the file says.

    Raises:
        UserError: Fewer than two names.
    """
    path = Path(text)
    if path.is_file():
        content = path.read_text(encoding='utf-8')
        if content.lstrip().startswith('{'):
            return read_class_info(path)
        names = content.splitlines()
    else:
        names = text.split(',')
    names = [name.strip() for name in names if name.strip()]
    if len(names) < 2:
        raise UserError(
            f'--classes got {text!r}, expected two or more names with commas '
            'between them, or a file with a name in each line.'
        )
    return {'classes': names}


def _no_class(who: str, value: int, names: Sequence[str], where: str) -> str:
    shown = f'the colour {_rgb([value])[0].tolist()}' if value < 0 else value
    return (
        f'{who} {shown}, which is none of the {len(names)} classes of '
        f'{where}: {", ".join(names)}.'
    )


def _rgb(labels: Sequence[int]) -> np.ndarray:
    numbers = -1 - np.asarray(labels)
    return np.stack(
        [numbers >> 16 & 255, numbers >> 8 & 255, numbers & 255], 1
    )


def _names(values: list[int]) -> list[str]:
    if values in ([0, 1], [0, IGNORED]):
        return ['background', 'foreground']
    if values[0] < 0:
        return [f'#{-1 - value:06x}' for value in values]
    return [f'class {value}' for value in values]


def _palette(values: list[int], mask: Path) -> list[list[int]] | None:
    """Take the masks' own colours where they tell the classes apart."""
    if values[0] < 0:
        return _rgb(values).tolist()
    with Image.open(mask) as image:
        own = image.getpalette() if image.mode == 'P' else None
    if own:
        own = np.resize(own, (len(own) // 3, 3)).tolist()
        if max(values) < len(own):
            colours = [own[value] for value in values]
            if len(set(map(tuple, colours))) == len(colours):
                return colours
    return None
