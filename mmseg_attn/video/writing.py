# Copyright (c) mmseg_attn contributors.
"""Write videos one frame at a time."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..pictures.opencv import cv2
from .encoders import open_encoder


class VideoWriter:
    """Writes frames of equal size to an MP4 file.

    Args:
        path: The file, ending in ``.mp4``.
        fps: Frames per second.
    """

    def __init__(self, path: str | Path, fps: float) -> None:
        self.path, self.fps, self.count = Path(path), fps, 0
        self._encoder = self._last = None

    def write(self, frame: np.ndarray, time: float | None = None) -> None:
        """Append a frame.

        Args:
            frame: (H, W, 3) uint8, BGR. An odd height or width grows by one,
                since the format has even sizes only.
            time: When it is to be shown, in seconds; the one before it is
                repeated until then. None: behind that.

        Raises:
            OSError: The file cannot be written.
        """
        height, width = frame.shape[:2]
        if height % 2 or width % 2:
            frame = cv2.copyMakeBorder(
                frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE
            )
        if self._encoder is None:
            self._encoder = open_encoder(
                self.path, self.fps, frame.shape[1::-1]
            )
        elif time is not None:
            while self.count < round(time * self.fps):
                self._append(self._last)
        self._append(frame)
        self._last = frame

    def _append(self, frame: np.ndarray) -> None:
        try:
            self._encoder.write(frame)
        except BrokenPipeError as error:  # ffmpeg has given up
            raise self._failure() from error
        self.count += 1

    def _failure(self) -> OSError:
        free = shutil.disk_usage(self.path.parent).free
        code = errno.ENOSPC if free < 1 << 20 else errno.EIO
        return OSError(code, os.strerror(code), str(self.path))

    def release(self) -> None:
        """Close the file as it is."""
        if self._encoder is not None:
            self._encoder.release()

    def close(self) -> None:
        """Finish the file and read it back, since encoders hide failures.

        Raises:
            OSError: The file does not hold all frames, or there were none.
        """
        self.release()
        capture = cv2.VideoCapture(str(self.path))
        found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        readable = capture.read()[0]
        capture.release()
        if not readable or found != self.count:
            raise self._failure()


@contextmanager
def write_video(path: str | Path, fps: float) -> Iterator[VideoWriter]:
    """Write a video file and check it at the end.

    Args:
        path: The file, ending in ``.mp4``.
        fps: Frames per second.

    Yields:
        What takes the frames.

    Raises:
        OSError: The file does not hold all frames at the end.
    """
    writer = VideoWriter(path, fps)
    try:
        yield writer
    except BaseException:
        writer.release()
        raise
    writer.close()
