# Copyright (c) mmseg_attn contributors.
"""Read and write videos one frame at a time."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from .errors import UserError

VIDEOS = ('.avi', '.gif', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg')
VIDEOS += ('.mxf', '.webm', '.wmv')


class VideoReader:
    """The frames of an open video, each read when it is asked for.

    Args:
        capture: The open video.

    Attributes:
        frames: How many the file says it has; 0 if it does not say.
        fps: Frames per second; 25 if the file does not say.
        time: When the frame that was read last is shown, in milliseconds.
    """

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture = capture
        self.frames = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else 25.0
        self.time = 0.0

    def seek(self, index: int) -> np.ndarray | None:
        """Jump to a frame and read it.

        OpenCV finds it by its time as if all lasted equally long: where they
        do not, it is another frame (see :func:`read_frame`).

        Args:
            index: From 0 on.

        Returns:
            (H, W, 3) uint8, BGR, or None where that fails.
        """
        self._capture.set(cv2.CAP_PROP_POS_FRAMES, index)
        return next(iter(self), None)

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            there, frame = self._capture.read()
            if not there:
                return
            self.time = self._capture.get(cv2.CAP_PROP_POS_MSEC)
            yield frame


@contextmanager
def read_video(path: str | Path) -> Iterator[VideoReader]:
    """Open a video file.

    Args:
        path: The file.

    Yields:
        Its frames, (H, W, 3) uint8 in BGR order.

    Raises:
        UserError: It is no video that OpenCV can decode.
    """
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise UserError(
                f'{path} cannot be read as a video: it is damaged, cut off, '
                'or in a format that OpenCV does not know.'
            )
        yield VideoReader(capture)
    finally:
        capture.release()


def count_frames(path: str | Path) -> int:
    """How many frames of a video can be read.

    Args:
        path: The file.

    Returns:
        Their number.

    Raises:
        UserError: It is no video.
    """
    return len(_times(path))


def _times(path: str | Path) -> list[float]:
    """When each frame of a video is shown."""
    since = os.stat(path).st_mtime_ns if os.path.exists(path) else None
    return _times_since(str(path), since)


@lru_cache(maxsize=1024)
def _times_since(path: str, since: int | None) -> list[float]:
    """The same, of a video that was last changed then."""
    with read_video(path) as video:
        return [video.time for _ in video]


def read_frame(path: str | Path, index: int) -> np.ndarray:
    """Read one frame of a video, also where the frame rate varies.

    The first time a video is read through, for the times of its frames.

    Args:
        path: The file.
        index: From 0 on.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        UserError: It is no video, or ends before.
    """
    times = _times(path)
    if index >= len(times):
        raise UserError(
            f'{path} ends early: frame {index} is asked for, and '
            f'{len(times)} can be read.'
        )
    with read_video(path) as video:
        frame = video.seek(index)
        if frame is not None and video.time == times[index]:
            return frame
    with read_video(path) as video:  # the jump missed it: count
        return next(islice(video, index, None))


class VideoWriter:
    """Writes frames of equal size to an MP4 file.

    Args:
        path: The file, ending in ``.mp4``.
        fps: Frames per second.
    """

    def __init__(self, path: str | Path, fps: float) -> None:
        self.path, self.fps, self.count = Path(path), fps, 0
        self._writer = None

    def write(self, frame: np.ndarray) -> None:
        """Append a frame.

        Args:
            frame: (H, W, 3) uint8, BGR. An odd height or width grows by one,
                since the format has even sizes only.

        Raises:
            OSError: The file cannot be written.
        """
        height, width = frame.shape[:2]
        if height % 2 or width % 2:
            frame = cv2.copyMakeBorder(
                frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE
            )
        if self._writer is None:
            size = frame.shape[1::-1]
            code = cv2.VideoWriter_fourcc(*'mp4v')
            self._writer = cv2.VideoWriter(
                str(self.path), code, self.fps, size
            )
            if not self._writer.isOpened():
                raise OSError(f'Cannot write a video to {self.path}.')
        self._writer.write(frame)
        self.count += 1

    def release(self) -> None:
        """Close the file as it is."""
        if self._writer is not None:
            self._writer.release()

    def close(self) -> None:
        """Finish the file and read it back, since OpenCV hides failures.

        Raises:
            OSError: The file does not hold all frames, or there were none.
        """
        self.release()
        capture = cv2.VideoCapture(str(self.path))
        found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        readable = capture.read()[0]
        capture.release()
        if not readable or found != self.count:
            free = shutil.disk_usage(self.path.parent).free
            code = errno.ENOSPC if free < 1 << 20 else errno.EIO
            raise OSError(code, os.strerror(code), str(self.path))


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
