# Copyright (c) mmseg_attn contributors.
"""Segment pictures in windows that stream, into files."""

import glob
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from rich.progress import Progress

from ..errors import UserError, need_package
from ..files import whole
from ..pictures import picture_size
from ..png import write_rows
from ..streaming import (
    Picture,
    RowFile,
    Windows,
    ignored_label,
    open_picture,
    overview,
    segment_rows,
)
from ..visualization.overlay import all_colours
from .jobs import Job
from .outputs import MaskOutput
from .region_files import Origin, area_table, write_json

# What the logits of a picture take when it is predicted whole: themselves,
# resized to the picture's size, and a window's filled up to that.
COPIES = 3
TIFF = ('.tif', '.tiff')


class WindowModel(Protocol):
    """A model as a function of windows, and how pictures are cut for it.

    Attributes:
        reason: Why its pictures cannot stream, to stand behind "because";
            None where they can.
        advice: What to do then with a picture that is too large.
        windows: How a picture is cut.
        threshold: Least probability of the foreground, of one logit.
        depth: Bits that 16-bit pictures use, as of
            :func:`~mmseg_attn.pictures.read_picture`.
    """

    reason: str | None
    advice: str
    windows: Windows
    threshold: float
    depth: int | None

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """Give the logits of windows of one size.

        Args:
            windows: (N, height, width, 3) uint8, BGR.
        """

    def resized(self, height: int, width: int) -> str | None:
        """Say to which size a picture would be brought; None: it keeps its.

        Args:
            height: The picture's, in pixels.
            width: Likewise.
        """


class Streamer:
    """Segments pictures into files in windows that stream, where it can.

    Args:
        model: What gives the logits of windows.
        output: What draws and saves.
        batch_size: Windows at a time.
        bands: Bands of TIFF files, as of
            :func:`~mmseg_attn.streaming.open_picture`.

    Attributes:
        made: When the note of the folder of results was made: rows that an
            earlier call left behind count if they are of the same.

    Raises:
        UserError: Bands or a blend are asked for, and nothing streams.
    """

    made = 0

    def __init__(
        self,
        model: WindowModel,
        output: MaskOutput,
        batch_size: int = 1,
        bands: Sequence[int] | None = None,
    ) -> None:
        self.model, self.output = model, output
        self.batch_size, self.bands = batch_size, bands
        if bands:
            self._refuse_if_whole('--bands')
        if model.windows.blend != 'average':
            self._refuse_if_whole('--blend')
        classes = len(output.meta['classes'])
        self.dtype = np.dtype(np.uint16 if classes > 255 else np.uint8)

    def _refuse_if_whole(self, option: str) -> None:
        if self.model.reason:
            raise UserError(
                f'{option} is for pictures whose windows stream, and none '
                f'does, because {self.model.reason}: {self.model.advice}'
            )

    def _open(self, source: Path) -> Picture:
        return open_picture(source, self.bands, self.model.depth)

    def with_place(self, job: Job) -> Job:
        """Let the class map of a picture with a place on Earth be a GeoTIFF.

        Args:
            job: With what is saved by default.

        Returns:
            The job, perhaps with another file in place of the mask.
        """
        tiff = not job.is_video and job.source.suffix.lower() in TIFF
        if self.model.reason or not tiff:
            return job
        try:
            with self._open(job.source) as picture:
                if not picture.georeferenced:
                    return job
        except (UserError, OSError):  # told when its turn has come
            return job
        mask = job.data['mask']
        out = mask.parents[len(job.name.parts)]
        file = out / 'geotiff' / mask.relative_to(out / 'mask')
        return replace(job, data={'geotiff': file.with_suffix('.tif')})

    def takes(self, job: Job) -> bool:
        """Whether a picture streams; refuse one that must and cannot.

        Args:
            job: Its job.

        Returns:
            Whether to call this instead of predicting the picture whole.

        Raises:
            UserError: It is too large to be predicted whole, or a GeoTIFF is
                wanted of it.
        """
        if 'geotiff' in job.data:
            self._refuse_if_whole('--save geotiff')
            need_package('--save geotiff', 'rasterio')
        reason, advice = self.model.reason, self.model.advice
        try:
            width, height = picture_size(str(job.source))
        except (UserError, OSError):  # told by what opens it
            return reason is None
        if reason is None:
            to = self.model.resized(height, width)
            if to is None:
                return True
            reason = f'the test pipeline resizes it to {to}'
            advice = 'add --no-resize to predict it at its own size.'
        classes = len(self.output.meta['classes'])
        needed = COPIES * 4 * classes * height * width
        if needed > (there := _memory()):
            raise UserError(
                f'{job.source} is {width} x {height} pixels, whose logits '
                f'of {classes} classes take about {needed / 2**30:.0f} GiB, '
                f'more than the {there / 2**30:.0f} GiB of this machine: they '
                f'are all held because {reason}; {advice}'
            )
        return False

    def __call__(self, job: Job, progress: Progress) -> None:
        """Segment a picture and write what its job wants.

        Args:
            job: The job.
            progress: Shows the windows that are done.
        """
        with self._open(job.source) as picture:
            size = picture.height, picture.width
            rows, columns = self.model.windows.cut(*size)
            status = job.source.stat()
            origin = dict(
                made=self.made,
                size=size,
                file=(status.st_size, status.st_mtime_ns),
            )
            ends = *rows.starts[1:], rows.length
            state = _state(job)
            labels = RowFile(state, origin, picture.width, self.dtype, ends)
            task = progress.add_task(
                f'windows of {job.source.name}',
                total=len(rows.starts) * len(columns.starts),
            )
            try:
                for band in segment_rows(
                    picture,
                    self.model,
                    self.model.windows,
                    dtype=self.dtype,
                    threshold=self.model.threshold,
                    batch_size=self.batch_size,
                    since=labels.rows,
                    advance=lambda count: progress.advance(task, count),
                ):
                    labels.append(band)
            finally:
                progress.remove_task(task)
            self._write(job, picture, labels)
        labels.remove()

    def _write(self, job: Job, picture: Picture, labels: RowFile) -> None:
        height, width = picture.height, picture.width
        classes = self.output.meta['classes']
        colours = all_colours(self.output.meta['palette'])[:256]
        for kind, file in job.data.items():
            with whole(file) as path:
                if kind == 'mask':
                    table = colours if self.dtype == np.uint8 else None
                    write_rows(path, labels.bands(), height, width, table)
                elif kind == 'geotiff':
                    from ..streaming import rasters

                    rasters.write_geotiff(
                        path, picture, labels, classes, colours
                    )
                    # First, since the file itself says that all is done.
                    with whole(f'{file}.aux.xml') as names:
                        rasters.write_category_names(names, classes)
                elif kind == 'areas':
                    counts = np.zeros(ignored_label(self.dtype) + 1, np.int64)
                    for band in labels.bands():
                        found = np.bincount(band.ravel())
                        counts[: len(found)] += found
                    area = picture.pixel_area
                    table = area_table(counts, height, width, classes, area)
                    write_json(path, table)
                else:  # polygons, of the whole mask
                    origin = Origin(job.file_name, job.source)
                    mask = labels.read(0, height)
                    self.output.save(kind, path, mask, origin)
        if job.overlay:
            small, mask = overview(picture, labels)
            listed = self.output.classes_in(mask)
            shown = self.output.draw(small, mask, listed)
            with whole(job.overlay) as path:
                Image.fromarray(shown[..., ::-1]).save(path, quality=95)


def _state(job: Job) -> Path:
    """Where the rows that are done are kept: beside a result.

    An earlier call may have begun with another result.
    """
    folder = job.outputs[0].parents[len(job.name.parts) - 1]
    name = job.name.with_name(f'.{job.source.name}.rows')
    found = folder.parent.glob(f'*/{glob.escape(str(name))}')
    return next(found, folder / name)


def _memory() -> float:
    """Bytes of memory of this machine; infinitely many where none tells."""
    try:
        return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    except (AttributeError, ValueError, OSError):
        return float('inf')
