# Copyright (c) mmseg_attn contributors.
"""Segment a picture in windows, from its first row to its last."""

from collections.abc import Callable, Iterator
from itertools import groupby

import numpy as np

from .blending import Blend
from .pictures import Picture
from .windows import Cuts, Windows

# (N, height, width, 3) uint8 BGR -> (N, classes, height, width) float32.
Network = Callable[[np.ndarray], np.ndarray]


def ignored_label(dtype: np.dtype | type) -> int:
    """The class index of pixels that count for nothing.

    Args:
        dtype: Type of the class indices.

    Returns:
        The largest one: 255, of 16 bits 65535.
    """
    return int(np.iinfo(dtype).max)


def segment_rows(
    picture: Picture,
    network: Network,
    windows: Windows,
    *,
    dtype: type = np.uint8,
    threshold: float = 0.5,
    batch_size: int = 1,
    since: int = 0,
    advance: Callable[[int], object] = lambda count: None,
) -> Iterator[np.ndarray]:
    """Give a picture's class map in bands that no later window changes.

    At a time there are the pixels of one row of windows, and the sums of
    their logits. A window without a valid pixel is not predicted.

    Args:
        picture: What is segmented.
        network: Gives the logits of windows: (N, height, width, 3) uint8 BGR
            -> (N, classes, height, width) float32.
        windows: How the picture is cut.
        dtype: Type of the class indices.
        threshold: Least probability of the foreground, of a network with one
            logit.
        batch_size: Windows at a time, all of one row.
        since: Rows that are known already, where an earlier band ended. The
            windows above that reach below it are predicted again, so that the
            rest is the same to the last bit.
        advance: Told how many windows are done.

    Yields:
        (rows, width) class indices; :func:`ignored_label` where the picture
        is not valid.
    """
    rows, columns = windows.cut(picture.height, picture.width)
    blend = Blend(rows, columns, threshold)
    band = _Band(picture)
    bottoms = *rows.starts[1:], rows.length
    for top, bottom in zip(rows.starts, bottoms, strict=True):
        end = rows.end(top)
        if end <= since:
            advance(len(columns.starts))
            continue
        band.move(top, end)
        lefts = band.seen_from(columns)
        advance(len(columns.starts) - len(lefts))
        for batch in _batches(lefts, columns, batch_size):
            cuts = [band.pixels[:, x : columns.end(x)] for x in batch]
            found = network(np.stack(cuts))
            for left, logits in zip(batch, found, strict=True):
                blend.add(left, logits)
            advance(len(batch))
        labels = blend.finish(top, bottom, dtype)
        if band.valid is not None:
            labels[~band.valid[: bottom - top]] = ignored_label(dtype)
        if bottom > since:
            yield labels


def _batches(
    lefts: list[int], columns: Cuts, batch_size: int
) -> Iterator[list[int]]:
    """Gather windows of one width; the last ones may be cut off."""
    for _, group in groupby(lefts, lambda x: columns.end(x) - x):
        group = list(group)
        for start in range(0, len(group), batch_size):
            yield group[start : start + batch_size]


class _Band:
    """The rows of a picture that one row of windows sees.

    Each row is read once, in order: files that are decoded from their
    beginning allow no step back.
    """

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.top = self.bottom = 0
        self.pixels, self.valid = picture.read(0, 0)

    def move(self, top: int, bottom: int) -> None:
        kept = slice(min(top, self.bottom) - self.top, None)
        pixels, valid = self.picture.read(max(top, self.bottom), bottom)
        self.pixels = np.concatenate([self.pixels[kept], pixels])
        if valid is not None:
            self.valid = np.concatenate([self.valid[kept], valid])
        self.top, self.bottom = top, bottom

    def seen_from(self, columns: Cuts) -> list[int]:
        """First columns of the windows in which a pixel is valid."""
        if self.valid is None:
            return list(columns.starts)
        valid = self.valid.any(0)
        return [x for x in columns.starts if valid[x : columns.end(x)].any()]
