# Copyright (c) mmseg_attn contributors.
"""Read the file of a mask, or say what is wrong with it."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import UserError
from ..pictures import read_head

Colour = tuple[int, int, int]


CURE = (
    'Save it as an 8-bit picture of class indices from 0 on, with 255 for '
    'pixels that count for nothing ("nodata").'
)


def check_mask(path: str | Path) -> list[Colour]:
    """Refuse the file of a mask whose values a reader would change.

    Args:
        path: The file.

    Returns:
        The colours of its palette, by value; none where it has no palette.

    Raises:
        UserError: It has several pages, is to be turned, or holds values that
            are no whole numbers from 0 to 255.
        OSError: It is missing, or nothing that Pillow knows.
    """
    with _opened(path) as image:
        _check_values(path, image)
        return _palette(image)


def read_mask(path: str | Path) -> tuple[np.ndarray, list[Colour]]:
    """Read a mask of indices or colours.

    Args:
        path: The file.

    Returns:
        The labels, (H, W) int32: the values of an index picture; of a colour
        picture -1 minus the number of the colour, 65536 red + 256 green +
        blue. And the colours of its palette, as of :func:`check_mask`.

    Raises:
        UserError: It cannot be read, or as of :func:`check_mask`.
    """
    try:
        with _opened(path) as image:
            labels = _check_values(path, image)
            if labels is None:
                if image.mode in ('1', 'L', 'P'):
                    labels = np.array(image).astype(np.int32)
                else:
                    rgb = np.array(image.convert('RGB')).astype(np.int32)
                    labels = -1 - rgb @ np.array([1 << 16, 1 << 8, 1])
            labels = np.ascontiguousarray(labels, np.int32)
            return labels, _palette(image)
    except UserError:
        raise
    # Pillow's readers raise whatever a broken file leads them to.
    except Exception as error:
        raise UserError(
            f'the mask {path} cannot be decoded: {error}'
        ) from error


class PaletteCheck:
    """Compares the palettes of masks: one colour is one value in all of them.

    Args:
        ignore_index: The label of pixels that count for nothing.
    """

    def __init__(self, ignore_index: int = 255) -> None:
        self.ignore_index = ignore_index
        self.seen: dict[Colour, tuple[int, str]] = {}

    def __call__(
        self, path: str | Path, values: Iterable[int], palette: list[Colour]
    ) -> None:
        """Compare the palette of one mask with those before it.

        Args:
            path: The mask.
            values: Those that it holds.
            palette: The colours of its values.

        Raises:
            UserError: Another mask has one of the colours for another value.
        """
        used = [
            (palette[value], value)
            for value in map(int, values)
            if 0 <= value < len(palette) and value != self.ignore_index
        ]
        colours = [colour for colour, _ in used]
        for colour, value in used:
            if colours.count(colour) > 1:
                continue  # tells nothing apart
            other, where = self.seen.setdefault(colour, (value, str(path)))
            if other != value:
                raise UserError(
                    f'the palettes of the masks differ: the colour {colour} '
                    f'is the value {value} in {path}, but {other} in {where}. '
                    'A value must mean one class in all masks: save them '
                    'with one palette.'
                )


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """Open a mask whose head says nothing against it."""
    head = read_head(str(path))
    # Those of other formats are animations.
    if head and head.tiff and head.pages > 1:
        raise UserError(
            f'the mask {path} has {head.pages} pages, of which only the first '
            'would be read: expected one.'
        )
    if head and head.turn not in (0, 1):
        raise UserError(
            f'the mask {path} has an orientation tag ({head.turn}), which '
            'some readers obey and some do not: save it upright and without '
            'the tag, as its picture is seen.'
        )
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            image = Image.open(path)
        except UnidentifiedImageError:
            if head is None:
                raise
            raise UserError(
                f'the mask {path} has {head.bands} bands of {head.bits}-bit '
                f'{head.kind} values. {CURE}'
            ) from None
        with image:
            yield image


def _check_values(path: str | Path, image: Image.Image) -> np.ndarray | None:
    """Read the values if they are of another kind than 8 bits without sign."""
    head = read_head(str(path))
    signed = head is not None and head.kind == 'signed'
    if image.mode == 'L' and signed:
        values = np.array(image).view(np.int8)
    elif image.mode[0] in 'IF':
        values = np.array(image)
    else:
        return None
    # Readers cut them to 8 bits: 256 would pass as 0, -1 as 255.
    wrong = ~((values >= 0) & (values <= 255) & (values == np.floor(values)))
    if wrong.any():
        bits = head.bits if head else 8 * values.itemsize
        raise UserError(
            f'the mask {path} has {bits} bits per pixel and holds the value '
            f'{values[wrong][0]:g} ({wrong.sum()} pixels), expected whole '
            f'numbers from 0 to 255. {CURE}'
        )
    return values


def _palette(image: Image.Image) -> list[Colour]:
    colours = image.getpalette() if image.mode == 'P' else None
    if not colours:
        return []
    return [tuple(colours[i : i + 3]) for i in range(0, len(colours), 3)]
