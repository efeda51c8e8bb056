# Copyright (c) mmseg_attn contributors.
"""Encoders of videos, those first whose files browsers play."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from ..pictures.opencv import cv2
from .quiet import quiet_opencv

# ffmpeg's encoders of H.264, then of VP9, with their options.
H264 = {
    'libx264': ('-preset', 'veryfast', '-crf', '20'),
    'libopenh264': ('-b:v', '4M'),
}
VP9 = {
    'libvpx-vp9': (
        *('-b:v', '0', '-crf', '30', '-row-mt', '1'),
        *('-deadline', 'realtime', '-cpu-used', '6'),
    )
}


class Encoder(Protocol):
    """Takes frames (H, W, 3) uint8, BGR, with even sides, into a file."""

    def write(self, frame: np.ndarray) -> None:
        """Append a frame."""

    def release(self) -> None:
        """Close the file as it is."""


class FFmpeg:
    """Frames through a pipe into the program ffmpeg.

    Args:
        command: Path of the program.
        options: Its encoder with options.
        path: The file.
        fps: Frames per second.
        size: Width and height.
    """

    def __init__(
        self,
        command: str,
        options: tuple[str, ...],
        path: Path,
        fps: float,
        size: tuple[int, int],
    ) -> None:
        self._process = subprocess.Popen(
            [
                *(command, '-y', '-loglevel', 'quiet', '-f', 'rawvideo'),
                *('-pix_fmt', 'bgr24', '-s', f'{size[0]}x{size[1]}'),
                *('-r', f'{fps:.6g}', '-i', '-', '-an', '-c:v', *options),
                # What browsers play, and what they can begin to play early.
                *('-pix_fmt', 'yuv420p', '-movflags', '+faststart'),
                f'file:{path}',
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is not meant for it
        )

    def write(self, frame: np.ndarray) -> None:
        """Append a frame."""
        self._process.stdin.write(np.ascontiguousarray(frame))

    def release(self) -> None:
        """Close the file as it is."""
        with suppress(BrokenPipeError):  # it ended before; the file tells
            self._process.stdin.close()
        self._process.wait()


def open_encoder(path: Path, fps: float, size: tuple[int, int]) -> Encoder:
    """Open the best encoder that there is.

    That is H.264 by ffmpeg or OpenCV, else VP9 by either, else MPEG-4, which
    browsers do not play.

    Args:
        path: The file, ending in ``.mp4``.
        fps: Frames per second.
        size: Width and height, both even.

    Returns:
        What takes the frames.

    Raises:
        OSError: The file cannot be written.
    """
    for choices, code in ((H264, 'avc1'), (VP9, 'vp09')):
        for command in commands():
            for name, options in choices.items():
                if name in names_in(command):
                    options = (name, *options)
                    return FFmpeg(command, options, path, fps, size)
        found = open_in_opencv(path, code, fps, size)
        if found:
            return found
    found = open_in_opencv(path, 'mp4v', fps, size)
    if not found:
        raise OSError(f'Cannot write a video to {path}.')
    warn_once()
    return found


def open_in_opencv(
    path: Path, code: str, fps: float, size: tuple[int, int]
) -> cv2.VideoWriter | None:
    """Open an encoder of OpenCV, by its four letters, or return None."""
    with quiet_opencv():  # it says of each encoder that it lacks
        fourcc = cv2.VideoWriter_fourcc(*code)
        writer = cv2.VideoWriter(str(path), fourcc, fps, size)
    return writer if writer.isOpened() else None


@lru_cache
def commands() -> tuple[str, ...]:
    """Paths of ffmpeg: the system's, and that of imageio-ffmpeg."""
    found = [shutil.which('ffmpeg')]
    with suppress(ImportError, RuntimeError):
        from imageio_ffmpeg import get_ffmpeg_exe

        found.append(get_ffmpeg_exe())
    return tuple(dict.fromkeys(filter(None, found)))


@lru_cache
def names_in(command: str) -> set[str]:
    """Names of the encoders that a program ffmpeg has."""
    try:
        listed = subprocess.run(
            [command, '-hide_banner', '-encoders'],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return set()
    lines = (line.split() for line in listed.splitlines())
    return {words[1] for words in lines if len(words) > 1}


@lru_cache
def warn_once() -> None:
    """Say, the first time, that browsers do not play what is written."""
    warnings.warn(
        'the video is in MPEG-4, which browsers do not play: neither ffmpeg '
        'nor OpenCV has an encoder of H.264 or VP9 here; `pip install '
        'imageio-ffmpeg` brings one.',
        stacklevel=4,
    )
