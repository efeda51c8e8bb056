# Copyright (c) mmseg_attn contributors.
"""Pictures that are read by bands of rows."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..errors import UserError, need_package
from ..pictures import check_depth, check_head, open_head, read_picture
from ..pictures.heads import Head

# PNG files of so many pixels are read by bands where that can be done; whole,
# a picture takes three bytes a pixel.
LARGE = 2**25


class Picture:
    """A picture in memory, and what all pictures have.

    To be used as a context manager, which closes its file.

    Args:
        pixels: (H, W, 3) uint8, BGR.

    Attributes:
        height: In pixels.
        width: In pixels.
        georeferenced: Whether it says where on Earth it lies.
        pixel_area: Square metres of a pixel on the ground; None where that is
            not known.
    """

    georeferenced: bool = False
    pixel_area: float | None = None

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels
        self.height, self.width = pixels.shape[:2]

    def __enter__(self) -> 'Picture':
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def read(
        self, top: int, bottom: int
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Read a band of rows.

        Args:
            top: Its first row.
            bottom: The row behind its last one.

        Returns:
            (bottom - top, W, 3) uint8 BGR, and which of its pixels are valid,
            (bottom - top, W) bool; None: all pixels of the picture.

        Raises:
            UserError: The file is damaged there.
        """
        return self._pixels[top:bottom], None

    def place(self) -> dict:
        """Say where on Earth the picture lies, as rasterio's profile does.

        Returns:
            Empty where it does not say.
        """
        return {}


def open_picture(
    path: str | Path,
    bands: Sequence[int] | None = None,
    depth: int | None = None,
) -> Picture:
    """Open a picture to be read by bands of rows.

    Where rasterio is installed, TIFF files are read so, and so are PNG files
    of :data:`LARGE` or more pixels whose values need no change. Other pictures
    are decoded whole, JPEG among them: its decoders round differently, and
    that of OpenCV has no bands.

    Args:
        path: The file.
        bands: Bands of a TIFF file that are red, green and blue, or the one
            that is grey, counted from 1. By default the first three, or the
            only one.
        depth: Bits that the values of 16-bit pictures use, as of
            :func:`~mmseg_attn.pictures.read_picture`.

    Returns:
        The picture, whose file is open.

    Raises:
        UserError: It is no whole picture, or of values that have no colour, or
            has no such bands.
    """
    path = str(path)
    check_depth(depth)
    head = open_head(path, path) if Path(path).is_file() else None
    tiff = head is not None and head.tiff
    if bands and not tiff:
        raise UserError(f'--bands is for TIFF files, and {path} is none.')
    if bands:
        need_package('--bands', 'rasterio')
    if tiff and head.turn in (0, 1) and find_spec('rasterio'):
        from .rasters import Raster

        check_head(head, path, bands=False)
        return Raster(path, bands, depth)
    if head and find_spec('rasterio') and _is_plain(path, head):
        from .rasters import Raster

        return Raster(path)
    return Picture(read_picture(path, depth))


def _is_plain(path: str, head: Head) -> bool:
    """Whether it is a large PNG file that gives its colours as they are.

    Not one that is to be turned, has a palette, alpha or another depth, or
    comes in several passes, of which all have to be decoded for the first row.
    """
    if head.width * head.height < LARGE or head.turn not in (0, 1):
        return False
    with open(path, 'rb') as file:
        start = file.read(29)
    depth, colour, passes = start[24], start[25], start[28]
    png = start[:4] == b'\x89PNG'
    return png and depth == 8 and colour in (0, 2) and not passes
