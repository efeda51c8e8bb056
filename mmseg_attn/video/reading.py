# Copyright (c) mmseg_attn contributors.
"""Read videos one frame at a time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from ..errors import UserError, need_package
from ..pictures.opencv import cv2
from .quiet import quiet_opencv
from .streams import Stream, ended_by_interrupt

VIDEOS = ('.avi', '.gif', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg')
VIDEOS += ('.mxf', '.webm', '.wmv')
# Seconds until an address that does not answer is given up.
PATIENCE = 15


class VideoReader:
    """The frames of an open video, each read when it is asked for.

    Args:
        capture: The open video.
        stop: Once it is set, no more frames come.

    Attributes:
        live: Whether frames come whether they are read or not.
        stop: The same event.
        frames: How many the file says it has; 0 if it does not say.
        fps: Frames per second; 25 if the file does not say.
        time: When the frame that was read last is shown, in milliseconds.
    """

    live: bool = False

    def __init__(
        self, capture: cv2.VideoCapture, stop: threading.Event
    ) -> None:
        self._capture, self.stop = capture, stop
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
        while not self.stop.is_set():
            there, frame = self._capture.read()
            if not there:
                return
            self.time = self._capture.get(cv2.CAP_PROP_POS_MSEC)
            yield frame


class LiveReader(VideoReader):
    """The newest frame of a camera or a stream, each time one is asked for.

    Those that come while one is being worked on are passed over, so that
    what is shown does not fall behind. Arguments as of :class:`VideoReader`.
    """

    live: bool = True

    def __iter__(self) -> Iterator[np.ndarray]:
        newest: list[np.ndarray] = []
        ended, news = threading.Event(), threading.Condition()

        def read() -> None:
            while not ended.is_set():
                there, frame = self._capture.read()
                with news:
                    if there:
                        newest[:] = [frame]
                    else:
                        ended.set()
                    news.notify()

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        since = None
        try:
            while True:
                with news:
                    # Ctrl-C does not wake what waits without a limit.
                    while not (newest or ended.is_set() or self.stop.is_set()):
                        news.wait(0.2)
                    if self.stop.is_set() or not newest:
                        return
                    frame = newest.pop()
                now = time.monotonic()
                since = since or now
                self.time = 1000 * (now - since)
                yield frame
        finally:
            ended.set()
            thread.join()


@contextmanager
def read_video(source: str | Path | Stream) -> Iterator[VideoReader]:
    """Open a video file, a camera or a stream.

    Args:
        source: The file, or a camera or address, of which Ctrl-C ends the
            frames instead of raising.

    Yields:
        Its frames, (H, W, 3) uint8 in BGR order.

    Raises:
        UserError: It is no video that OpenCV can decode, or does not answer.
    """
    need_package(f'the video {source}', 'cv2')
    with ExitStack() as stack:
        if isinstance(source, Stream):
            capture = _open_stream(source)
            hint = (
                'is it there, free, and may you read it?'
                if source.is_camera
                else 'expected video in a protocol and format that OpenCV '
                f'knows, and an answer within {PATIENCE} seconds.'
            )
            message = f'{source} cannot be opened: {hint}'
            stop = stack.enter_context(ended_by_interrupt())
        else:
            capture = cv2.VideoCapture(str(source))
            message = (
                f'{source} cannot be read as a video: it is damaged, cut off, '
                'or in a format that OpenCV does not know.'
            )
            stop = threading.Event()
        stack.callback(capture.release)
        if not capture.isOpened():
            raise UserError(message)
        live = isinstance(source, Stream) and not (
            capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0
        )
        yield (LiveReader if live else VideoReader)(capture, stop)


def _open_stream(source: Stream) -> cv2.VideoCapture:
    limits = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 1000 * PATIENCE)
    limits += (cv2.CAP_PROP_READ_TIMEOUT_MSEC, 1000 * PATIENCE)
    with quiet_opencv():  # the error says it
        if source.is_camera:
            return cv2.VideoCapture(int(source.address))
        return cv2.VideoCapture(source.address, cv2.CAP_FFMPEG, limits)


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
