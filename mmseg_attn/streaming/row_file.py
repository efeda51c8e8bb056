# Copyright (c) mmseg_attn contributors.
"""Rows of a class map on disk, so that a killed run goes on from them."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np


class RowFile:
    """A class map that grows by bands of rows.

    The file begins with a line of JSON that says what it is of; then come the
    rows, as they are. One of something else is begun anew.

    Args:
        path: The file.
        origin: What makes the rows: size, settings, the picture's date.
        width: Pixels of a row.
        dtype: Type of the class indices.
        ends: The rows that bands end with, in order: what a killed run has
            written of a band counts for nothing.

    Attributes:
        rows: How many there are.
    """

    def __init__(
        self,
        path: Path,
        origin: dict,
        width: int,
        dtype: np.dtype | type,
        ends: Iterable[int],
    ) -> None:
        self.path, self.width, self.dtype = path, width, np.dtype(dtype)
        self._head = json.dumps(origin, sort_keys=True).encode() + b'\n'
        self._pitch = width * self.dtype.itemsize
        self.rows = 0
        if path.is_file():
            with open(path, 'rb') as file:
                same = file.read(len(self._head)) == self._head
            if same:
                size = path.stat().st_size - len(self._head)
                whole = [end for end in ends if end * self._pitch <= size]
                self.rows = max(whole, default=0)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self.rows:
            path.write_bytes(self._head)
        os.truncate(path, self._offset(self.rows))

    def _offset(self, row: int) -> int:
        return len(self._head) + row * self._pitch

    def append(self, labels: np.ndarray) -> None:
        """Write a band behind the others.

        Args:
            labels: (rows, width) class indices.
        """
        with open(self.path, 'ab') as file:
            file.write(np.ascontiguousarray(labels, self.dtype).tobytes())
        self.rows += len(labels)

    def read(self, top: int, bottom: int) -> np.ndarray:
        """Read rows that are there.

        Args:
            top: The first one.
            bottom: The row behind the last one.

        Returns:
            (bottom - top, width) class indices.
        """
        count = (bottom - top) * self.width
        offset = self._offset(top)
        labels = np.fromfile(self.path, self.dtype, count, offset=offset)
        return labels.reshape(bottom - top, self.width)

    def bands(self, height: int = 512) -> Iterator[np.ndarray]:
        """Read all rows that are there.

        Args:
            height: Rows at a time.

        Yields:
            (rows, width) class indices.
        """
        for top in range(0, self.rows, height):
            yield self.read(top, min(top + height, self.rows))

    def remove(self) -> None:
        """Delete the file: what it was for is written."""
        self.path.unlink(missing_ok=True)
