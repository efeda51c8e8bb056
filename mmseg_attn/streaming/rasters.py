# Copyright (c) mmseg_attn contributors.
"""Read and write GeoTIFF files by bands of rows, with rasterio."""

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.shutil import copy
from rasterio.windows import Window

from ..errors import UserError
from ..pictures import to_8_bits
from .pictures import Picture
from .row_file import RowFile
from .segmenting import ignored_label

# GDAL keeps what it has decoded, up to a twentieth of a machine's memory.
CACHE = 64 * 2**20
# Side of the result's tiles, in pixels, and rows written at a time.
TILE = 512
# Rows read at a time to find the largest value.
ROWS = 512


@contextmanager
def quiet_gdal() -> Iterator[None]:
    """Bound what GDAL keeps in memory, and hide what it logs.

    Yields:
        Nothing, while files are read or written.
    """
    log = logging.getLogger('rasterio')
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=CACHE):
            warnings.simplefilter('ignore', NotGeoreferencedWarning)
            yield
    finally:
        log.setLevel(before)


class Raster(Picture):
    """A file that rasterio reads by bands of rows.

    Its pixels are valid where its mask, alpha or nodata value says so for one
    of the bands that are read.

    Args:
        path: The file.
        bands: Those read, as of :func:`~mmseg_attn.streaming.open_picture`.
        depth: Likewise.

    Raises:
        UserError: It is damaged, of values that have no colour, or has no such
            bands.
    """

    def __init__(
        self,
        path: str | Path,
        bands: Sequence[int] | None = None,
        depth: int | None = None,
    ) -> None:
        self.path, self.depth = str(path), depth
        with self._told('opened'):
            self._file = rasterio.open(path)
        self.height, self.width = self._file.shape
        self.bands = self._choose(bands)
        first = self.bands[0]
        kinds = {self._file.dtypes[band - 1] for band in self.bands}
        if not kinds <= {'uint8', 'uint16'} or len(kinds) > 1:
            raise UserError(
                f'{path} holds values of type {", ".join(sorted(kinds))}, '
                'which have no colour: expected 8 or 16 bits without sign.'
            )
        flags = self._file.mask_flag_enums
        self._masked = any(
            MaskFlags.all_valid not in flags[band - 1] for band in self.bands
        )
        self._colours = None
        if self._file.colorinterp[first - 1] == ColorInterp.palette:
            table = self._file.colormap(first)
            self._colours = np.zeros((max(table) + 1, 3), np.uint8)
            for value, colour in table.items():
                self._colours[value] = colour[:3]
        self._wide = kinds == {'uint16'} and self._colours is None
        about = self._file.tags(first, ns='IMAGE_STRUCTURE')
        self._bits = int(about.get('NBITS', 16 if self._wide else 8))
        if self._wide and self._bits < 16:
            self.depth = 16  # the file itself says it
        # GDAL gives values as they are stored.
        self._white_first = 'MINISWHITE' in self._file.tags(
            ns='IMAGE_STRUCTURE'
        )

    def __exit__(self, *error: object) -> None:
        self._file.close()

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            with quiet_gdal():
                yield
        except RasterioError as error:
            raise UserError(
                f'{self.path} cannot be {what}: it is damaged or cut off '
                f'({error}).'
            ) from error

    def _choose(self, bands: Sequence[int] | None) -> list[int]:
        colours = [
            band
            for band, kind in enumerate(self._file.colorinterp, start=1)
            if kind != ColorInterp.alpha
        ]
        there = f'{self.path} has {len(colours)} bands'
        if bands is None:
            if len(colours) not in (1, 3, 4):
                raise UserError(
                    f'{there}: say which of them are red, green and blue, '
                    'such as --bands 3,2,1, or the one that is grey.'
                )
            return colours[:3] if len(colours) > 1 else colours
        count = self._file.count
        if len(bands) not in (1, 3) or not all(1 <= b <= count for b in bands):
            given = ','.join(map(str, bands))
            raise UserError(
                f'--bands {given}: expected the three bands that are red, '
                f'green and blue, or one, from 1 to {count}: {there}.'
            )
        return list(bands)

    @property
    def georeferenced(self) -> bool:
        """Whether the file has a place on Earth."""
        return bool(self.place())

    def place(self) -> dict:
        """Its coordinate system with a transform, control points or RPCs."""
        with quiet_gdal():
            file, found = self._file, {}
            points, points_crs = file.gcps
            if not file.transform.is_identity:
                found = dict(transform=file.transform, crs=file.crs)
            elif points:
                found = dict(gcps=points, crs=points_crs)
            if file.rpcs:
                found['rpcs'] = file.rpcs
            return found

    @property
    def pixel_area(self) -> float | None:
        """Square metres of a pixel, in a projected coordinate system."""
        transform, crs = self._file.transform, self._file.crs
        if transform.is_identity or not crs or not crs.is_projected:
            return None
        return abs(transform.determinant) * crs.linear_units_factor[1] ** 2

    def read(
        self, top: int, bottom: int
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Read a band of rows, as :meth:`Picture.read`."""
        if top == bottom:
            empty = np.zeros((0, self.width, 3), np.uint8)
            return empty, empty[..., 0] > 0 if self._masked else None
        values, valid = self._values(top, bottom)
        if self._colours is not None:
            last = len(self._colours) - 1
            values = self._colours[np.minimum(values[0], last)][..., ::-1]
            return np.ascontiguousarray(values), valid
        if self._wide:
            values = self._to_8_bits(values)
        pixels = values[::-1].transpose(1, 2, 0)
        if len(values) == 1:
            pixels = pixels.repeat(3, axis=-1)
        return np.ascontiguousarray(pixels), valid

    def _values(
        self, top: int, bottom: int
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Values (bands, rows, W), and which are valid.

        Those that are no places in a colour table use all bits of their type,
        and black is 0.
        """
        window = Window(0, top, self.width, bottom - top)
        with self._told(f'read from row {top} to {bottom}'):
            values, valid = self._file.read(self.bands, window=window), None
            if self._masked:
                valid = self._file.read_masks(self.bands, window=window).any(0)
        if self._colours is not None:
            return values, valid
        if self._wide:  # as OpenCV does it
            values = values << (16 - self._bits)
        elif self._bits < 8:
            scaled = values * np.float32(255 / (2**self._bits - 1))
            values = np.rint(scaled).astype(np.uint8)
        return ~values if self._white_first else values, valid

    @cached_property
    def _largest(self) -> int:
        """The largest value, of 16 bits; it takes reading all of the file."""
        largest = 0
        for top in range(0, self.height, ROWS):
            values, valid = self._values(top, min(top + ROWS, self.height))
            if valid is not None:
                values = values * valid
            largest = max(largest, int(values.max()))
        return largest

    def _to_8_bits(self, values: np.ndarray) -> np.ndarray:
        # Pixels that count for nothing may be above.
        values = np.minimum(values, np.uint16(self._largest))
        return to_8_bits(values, self.path, self.depth, self._largest)


def write_geotiff(
    path: Path,
    picture: Picture,
    labels: RowFile,
    classes: Sequence[str],
    palette: np.ndarray,
) -> None:
    """Write a class map as a cloud-optimised GeoTIFF.

    It is tiled, compressed, with smaller copies of itself, the picture's place
    on Earth, a colour table (of 8 bits) and the names of the classes: the
    dataset's tag ``classes`` is their list in JSON, and the tags ``CLASS_0``,
    ``CLASS_1``, ... of the band are each a name. What counts for nothing is
    its nodata value.

    Args:
        path: Where to. Another file stands beside it while it is written.
        picture: What it is the class map of.
        labels: All rows of the class map.
        classes: Names of the classes.
        palette: (256, 3) uint8 RGB of each value.
    """
    place = picture.place()
    points, rpcs = place.pop('gcps', None), place.pop('rpcs', None)
    ignored = ignored_label(labels.dtype)
    options = dict(
        driver='GTiff',
        **dict(height=picture.height, width=picture.width, count=1),
        **dict(dtype=labels.dtype, nodata=ignored, bigtiff='if_safer'),
        **dict(tiled=True, blockxsize=TILE, blockysize=TILE),
        compress='deflate',
    )
    names = list(map(str, classes))
    tiles = path.with_name(f'{path.name}.tiles')
    try:
        with quiet_gdal():
            with rasterio.open(tiles, 'w', **options, **place) as file:
                if points:
                    file.gcps = points, place['crs']
                if rpcs:
                    file.rpcs = rpcs
                if labels.dtype == np.uint8:
                    opaque = enumerate(palette.tolist())
                    table = {value: (*rgb, 255) for value, rgb in opaque}
                    file.write_colormap(1, {**table, ignored: (0, 0, 0, 0)})
                file.update_tags(classes=json.dumps(names))
                tags = {f'CLASS_{i}': name for i, name in enumerate(names)}
                file.update_tags(1, **tags)
                file.set_band_description(1, 'class')
                top = 0
                for band in labels.bands(TILE):
                    window = Window(0, top, picture.width, len(band))
                    file.write(band, 1, window=window)
                    top += len(band)
            # A smaller copy of class indices takes one of four, not a mean.
            copy(
                tiles,
                path,
                driver='COG',
                **dict(compress='DEFLATE', blocksize=TILE),
                **dict(overview_resampling='NEAREST', bigtiff='IF_SAFER'),
            )
    finally:
        tiles.unlink(missing_ok=True)


def write_category_names(path: Path, classes: Sequence[str]) -> None:
    """Write names of classes where GDAL has those of a GeoTIFF's categories.

    The format has no place for them: GDAL keeps them in ``NAME.tif.aux.xml``
    beside ``NAME.tif``, and QGIS writes them into its legend.

    Args:
        path: Where to.
        classes: The names.
    """
    root = ElementTree.Element('PAMDataset')
    band = ElementTree.SubElement(root, 'PAMRasterBand', band='1')
    names = ElementTree.SubElement(band, 'CategoryNames')
    for name in classes:
        ElementTree.SubElement(names, 'Category').text = str(name)
    ElementTree.ElementTree(root).write(path, encoding='utf-8')
