# Copyright (c) mmseg_attn contributors.
"""Draw class maps over pictures, and save them as index pictures."""

import colorsys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..pictures.opencv import cv2

# A class whose red, green and blue are all above is called white.
NEARLY_WHITE = 200


def overlay(
    picture: np.ndarray,
    mask: np.ndarray,
    palette: Sequence[Sequence[int]],
    opacity: float = 0.5,
    clear: Sequence[int] = (),
) -> np.ndarray:
    """Blend the colours of the classes into a picture.

    Args:
        picture: (H, W, 3) uint8, BGR.
        mask: (H, W) class indices; pixels of none stay as they are.
        palette: (red, green, blue) of each class.
        opacity: 0 shows the picture alone, 1 the colours alone.
        clear: Indices of classes whose pixels stay as they are.

    Returns:
        (H, W, 3) uint8, BGR.
    """
    none = mask >= len(palette)
    colours = np.array(palette, np.uint8)[:, ::-1][np.where(none, 0, mask)]
    shown = _blend(picture, colours, opacity)
    kept = none | np.isin(mask, clear) if clear else none
    if kept.any():
        shown[kept] = picture[kept]
    return shown


def _blend(
    picture: np.ndarray, colours: np.ndarray, opacity: float
) -> np.ndarray:
    if cv2:
        return cv2.addWeighted(picture, 1 - opacity, colours, opacity, 0)
    with Image.fromarray(picture) as below, Image.fromarray(colours) as above:
        return np.array(Image.blend(below, above, opacity))


def paint(mask: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """Give every pixel the colour of its class.

    Args:
        mask: (H, W) class indices, 255 where none counts.
        palette: (red, green, blue) of each class.

    Returns:
        (H, W, 3) uint8, RGB; :func:`ignored_colour` where none counts.
    """
    return all_colours(palette)[mask]


def all_colours(palette: Sequence[Sequence[int]]) -> np.ndarray:
    """Give each value of 8 bits a colour, also where there is no class.

    Args:
        palette: (red, green, blue) of each class.

    Returns:
        (256 or as many as there are classes, 3) uint8 RGB; where there is no
        class, :func:`ignored_colour`.
    """
    colours = np.full((max(len(palette), 256), 3), 255, np.uint8)
    colours[:] = ignored_colour(palette)
    colours[: len(palette)] = palette
    return colours


def ignored_colour(palette: Sequence[Sequence[int]]) -> list[int]:
    """Choose the colour of pixels that count for nothing.

    Args:
        palette: (red, green, blue) of each class.

    Returns:
        White, or what is farthest from all classes where one is nearly white.
    """
    classes = np.array(palette, int).reshape(-1, 3)
    if not (classes.min(1) > NEARLY_WHITE).any():
        return [255, 255, 255]
    colours = np.stack(np.meshgrid(*[(0, 128, 255)] * 3), -1).reshape(-1, 3)
    distances = np.linalg.norm(colours[:, None] - classes, axis=-1)
    return colours[distances.min(1).argmax()].tolist()


def with_ignored(metainfo: dict) -> tuple[list[str], list[list[int]]]:
    """Names and colours to draw label maps with.

    Args:
        metainfo: That of a dataset, with its ``classes``, and perhaps its
            ``palette``.

    Returns:
        Of the classes, and last of what has no class or is ignored.
    """
    classes = list(metainfo['classes'])
    palette = metainfo.get('palette') or make_palette(len(classes))
    palette = [list(colour) for colour in palette[: len(classes)]]
    return [*classes, 'ignored'], [*palette, ignored_colour(palette)]


def text_font(height: int) -> tuple[ImageFont.FreeTypeFont, int]:
    """Choose letters that suit a picture.

    Args:
        height: Height of the picture, in pixels.

    Returns:
        The font, and its size in pixels.
    """
    size = min(max(height // 28, 11), 30)
    try:
        import matplotlib  # whose letters know more languages
    except ModuleNotFoundError:
        return ImageFont.load_default(size), size
    folder = Path(matplotlib.get_data_path(), 'fonts/ttf')
    return ImageFont.truetype(folder / 'DejaVuSans.ttf', size), size


class Legend:
    """A panel of class names and colours at the right of a picture.

    Its width depends on the picture's height and the names alone, so the
    frames of a video stay equal in size.

    Args:
        classes: Names of all classes.
        palette: (red, green, blue) of each class.
    """

    def __init__(
        self, classes: Sequence[str], palette: Sequence[Sequence[int]]
    ) -> None:
        self.classes, self.palette = classes, palette

    def add(self, picture: np.ndarray, present: Iterable[int]) -> np.ndarray:
        """Put the panel beside a picture.

        Args:
            picture: (H, W, 3) uint8, BGR.
            present: Indices of the classes to be listed; those that do not fit
                into the height are counted.

        Returns:
            (H, W + panel, 3) uint8, BGR.
        """
        height = len(picture)
        font, size = text_font(height)
        line = round(1.5 * size)
        text = max(font.getlength(str(name)) for name in self.classes)
        panel = Image.new('RGB', (round(text) + 3 * line, height), 'white')
        draw = ImageDraw.Draw(panel)
        present = list(present)
        room = max((height - line // 2) // line, 1)
        shown = present if len(present) <= room else present[: room - 1]
        y = line // 4
        for index in shown:
            box = (line // 2, y + line // 6, line * 3 // 2, y + line * 5 // 6)
            colour = tuple(self.palette[index])
            draw.rectangle(box, fill=colour, outline='grey')
            middle = (2 * line, y + line // 2)
            draw.text(middle, str(self.classes[index]), 'black', font, 'lm')
            y += line
        if len(shown) < len(present):
            rest = f'+ {len(present) - len(shown)} more'
            draw.text((line // 2, y + line // 2), rest, 'black', font, 'lm')
        return np.hstack([picture, np.asarray(panel)[..., ::-1]])


def save_mask(
    path: str | Path, mask: np.ndarray, palette: Sequence[Sequence[int]]
) -> None:
    """Save a class map as a PNG that holds indices and shows in colour.

    Args:
        path: Where to.
        mask: (H, W) class indices. uint8 is saved with the palette; uint16
            (more than 256 classes) in 16-bit grey.
        palette: (red, green, blue) of each class.
    """
    image = Image.fromarray(mask)
    if mask.dtype == np.uint8:
        # A palette of a few colours would make Pillow cut 255 to its bits.
        image.putpalette(all_colours(palette)[:256].tobytes())
    image.save(path)


def make_palette(classes: int) -> list[list[int]]:
    """Colours that differ for neighbouring class indices.

    Args:
        classes: How many.

    Returns:
        One (red, green, blue) of 0 to 255 for each class.
    """
    colours = []
    for index in range(classes):
        # Steps of the golden ratio never come close to an earlier hue soon.
        hue = (0.58 + index * 0.618034) % 1
        value = (0.95, 0.7)[index // 8 % 2]
        rgb = colorsys.hsv_to_rgb(hue, 0.65, value)
        colours.append([round(255 * channel) for channel in rgb])
    return colours


def as_bgr8(image: np.ndarray) -> np.ndarray:
    """Make a loaded picture of any depth and channel count showable.

    Args:
        image: (H, W) or (H, W, channels); the first channel is shown where
            there are not three.

    Returns:
        (H, W, 3) uint8; values beyond 0 to 255 are rescaled.
    """
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[-1] != 3:
        image = image[..., :1].repeat(3, axis=-1)
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        if low < 0 or high > 255:
            image = (image - low) * (255 / max(high - low, 1e-12))
        image = image.astype(np.uint8)
    return image
