# Copyright (c) mmseg_attn contributors.
"""Draw class maps over pictures, and save them as index pictures."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont


def overlay(
    picture: np.ndarray,
    mask: np.ndarray,
    palette: Sequence[Sequence[int]],
    opacity: float = 0.5,
) -> np.ndarray:
    """Blend the colours of the classes into a picture.

    Args:
        picture (np.ndarray): (H, W, 3) uint8, BGR.
        mask (np.ndarray): (H, W) class indices.
        palette (Sequence[Sequence[int]]): (red, green, blue) of each class.
        opacity (float): 0 shows the picture alone, 1 the colours alone.

    Returns:
        np.ndarray: (H, W, 3) uint8, BGR.
    """
    colours = np.array(palette, np.uint8)[:, ::-1][mask]
    return cv2.addWeighted(picture, 1 - opacity, colours, opacity, 0)


def paint(mask: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """Give every pixel the colour of its class.

    Args:
        mask (np.ndarray): (H, W) class indices, 255 where none counts.
        palette (Sequence[Sequence[int]]): (red, green, blue) of each class.

    Returns:
        np.ndarray: (H, W, 3) uint8, RGB; white where none counts.
    """
    colours = np.full((max(len(palette), 256), 3), 255, np.uint8)
    colours[: len(palette)] = palette
    return colours[mask]


class Legend:
    """A panel of class names and colours at the right of a picture.

    Its width depends on the picture's height and the names alone, so the
    frames of a video stay equal in size.

    Args:
        classes (Sequence[str]): Names of all classes.
        palette (Sequence[Sequence[int]]): (red, green, blue) of each class.
    """

    def __init__(
        self, classes: Sequence[str], palette: Sequence[Sequence[int]]
    ) -> None:
        self.classes, self.palette = classes, palette

    def add(self, picture: np.ndarray, present: Iterable[int]) -> np.ndarray:
        """Put the panel beside a picture.

        Args:
            picture (np.ndarray): (H, W, 3) uint8, BGR.
            present (Iterable[int]): Indices of the classes to be listed;
                those that do not fit into the height are counted.

        Returns:
            np.ndarray: (H, W + panel, 3) uint8, BGR.
        """
        height = len(picture)
        size = min(max(height // 28, 11), 30)
        font = ImageFont.truetype(
            Path(matplotlib.get_data_path(), 'fonts/ttf/DejaVuSans.ttf'), size
        )
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
        path (str | Path): Where to.
        mask (np.ndarray): (H, W) class indices. uint8 is saved with the
            palette; uint16 (more than 256 classes) in 16-bit grey.
        palette (Sequence[Sequence[int]]): (red, green, blue) of each class.
    """
    image = Image.fromarray(mask)
    if mask.dtype == np.uint8:
        image.putpalette(np.array(palette, np.uint8).tobytes())
    image.save(path)
