# Copyright (c) mmseg_attn contributors.
"""Clips: a frame and those around it, among files and in videos."""

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..errors import UserError
from ..pictures import read_picture, size_text
from .reading import VIDEOS, read_frame

NUMBERED = re.compile(r'(.*?)(\d+)')
Ready = TypeVar('Ready')


@dataclass
class Clip:
    """Which frames a model sees together.

    Attributes:
        frames: Number T of frames.
        label_frame: Which of them is segmented, from 0 on.
        step: How far apart two of them are.
    """

    frames: int
    label_frame: int
    step: int = 1

    def __post_init__(self) -> None:
        self._told = self.frames == 1

    def paths(self, path: str, folder: str | None = None) -> list[str]:
        """Find the frames around a picture, and warn once if there are none.

        Args:
            path: The picture.
            folder: Where the other frames are, as of :func:`clip_paths`.

        Returns:
            T paths.
        """
        shape = self.frames, self.label_frame, self.step
        found = clip_paths(path, *shape, folder)
        if len(set(found)) == 1 and not self._told:
            self._told = True
            warnings.warn(
                f'{path} has no other frame beside it: its clip is this '
                f'picture {self.frames} times. Others are found by the '
                f'last number of their name, {self.step} higher or lower.',
                stacklevel=3,
            )
        return found

    def stream(
        self,
        frames: Iterable[np.ndarray],
        encode: Callable[[np.ndarray], Ready],
    ) -> Iterator[tuple[np.ndarray, list[Ready]]]:
        """Go through a video of any length in bounded memory.

        What is made of a frame is kept while a clip to come holds it. Beyond
        the ends stands the first or the last frame.

        Args:
            frames: (H, W, 3) uint8.
            encode: Makes of a frame what is wanted of it, once.

        Yields:
            Each frame, and what was made of those of its clip.

        Raises:
            UserError: The frames change in size.
        """
        before = self.label_frame * self.step
        after = (self.frames - 1 - self.label_frame) * self.step
        # What is in reach of the next frame to be segmented, by number.
        kept = {}
        last, size = -1, None
        for last, frame in enumerate(frames):
            size = size or frame.shape
            if frame.shape != size:
                raise UserError(
                    f'frame {last} is {frame.shape[1]} x {frame.shape[0]} '
                    f'pixels, those before are {size[1]} x {size[0]}: '
                    'expected a video of one size.'
                )
            kept[last] = (frame, encode(frame))
            if last >= after:
                yield self._around(kept, last - after, last)
                kept.pop(last - after - before, None)
        for number in range(max(0, last + 1 - after), last + 1):
            yield self._around(kept, number, last)
            kept.pop(number - before, None)

    def _around(
        self, kept: dict[int, tuple], number: int, last: int
    ) -> tuple[np.ndarray, list]:
        numbers = [
            min(max(number + self.step * (i - self.label_frame), 0), last)
            for i in range(self.frames)
        ]
        return kept[number][0], [kept[n][1] for n in numbers]


def clip_paths(
    path: str,
    frames: int,
    label_frame: int,
    frame_step: int,
    folder: str | None = None,
) -> list[str]:
    """Find the frames around a picture by the number that ends its name.

    Args:
        path: The picture, such as ``0001TP_006690.png``.
        frames: Number T of frames of the clip.
        label_frame: Which of them the picture is, from 0 on.
        frame_step: How far apart the numbers of two frames are.
        folder: Where the other frames are. None means beside the picture.

    Returns:
        T paths. In place of a frame that is not there stands the nearest one
        that is, on the way to the picture.
    """
    stem, ending = os.path.splitext(os.path.basename(path))
    numbered = NUMBERED.fullmatch(stem)
    if not numbered:
        return [path] * frames
    name, digits = numbered.groups()
    folder = folder or os.path.dirname(path)
    present = _listing(folder)

    def find(number: int) -> str | None:
        for text in (f'{number:0{len(digits)}d}', str(number)):
            if number >= 0 and f'{name}{text}{ending}' in present:
                return os.path.join(folder, f'{name}{text}{ending}')
        return None

    return outward(path, int(digits), frames, label_frame, frame_step, find)


def _listing(folder: str) -> frozenset[str]:
    folder = folder or '.'
    if not os.path.isdir(folder):
        return frozenset()
    return _listed(folder, os.stat(folder).st_mtime_ns)


@lru_cache(maxsize=64)
def _listed(folder: str, since: int) -> frozenset[str]:
    """Names in a folder that was last changed then."""
    return frozenset(os.listdir(folder))


def outward(
    label: str,
    number: int,
    frames: int,
    label_frame: int,
    step: int,
    find: Callable[[int], str | None],
) -> list[str]:
    """Name the frames before and after one, each found or as its neighbour.

    Args:
        label: The frame.
        number: Its number.
        frames: Number T of frames of the clip.
        label_frame: Which of them it is, from 0 on.
        step: How far apart the numbers of two frames are.
        find: Names the frame of a number; None where there is none.

    Returns:
        T names.
    """
    sides = []
    for count, sign in ((label_frame, -1), (frames - 1 - label_frame, 1)):
        side, last = [], label
        for distance in range(1, count + 1):
            last = find(number + sign * distance * step) or last
            side.append(last)
        sides.append(side)
    return [*reversed(sides[0]), label, *sides[1]]


def frame_path(video: str | Path, index: int) -> str:
    """Name a frame of a video.

    Args:
        video: The video, such as ``NAME.mp4``.
        index: Number of the frame, from 0 on.

    Returns:
        ``NAME#INDEX.mp4``, so that what is written for a frame, under its name
        without the ending, is not that of another.
    """
    video = Path(video)
    return str(video.with_name(f'{video.stem}#{index}{video.suffix}'))


def read_clip_frame(path: str, depth: int | None = None) -> np.ndarray:
    """Read a frame of a clip.

    Args:
        path: A picture, or what :func:`frame_path` gives.
        depth: Bits that 16-bit pictures use.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        UserError: It cannot be read.
    """
    found = re.fullmatch(r'(.+)#(\d+)(\.\w+)', path)
    if found and found[3].lower() in VIDEOS:
        return read_frame(found[1] + found[3], int(found[2]))
    return read_picture(path, depth)


def read_clip(
    paths: Sequence[str], label_frame: int, depth: int | None = None
) -> list[np.ndarray]:
    """Read the frames of a clip, each file once.

    Args:
        paths: Their files, as :func:`read_clip_frame` reads them.
        label_frame: Which of them is segmented, from 0 on.
        depth: Bits that 16-bit pictures use.

    Returns:
        (H, W, 3) uint8 BGR of each.

    Raises:
        UserError: A frame cannot be read, or has another size.
    """
    loaded = {
        path: read_clip_frame(path, depth) for path in dict.fromkeys(paths)
    }
    own = loaded[paths[label_frame]]
    for path, frame in loaded.items():
        if frame.shape[:2] != own.shape[:2]:
            raise UserError(
                f'{path} is {size_text(frame)} pixels, the labelled frame '
                f'{paths[label_frame]} is {size_text(own)}: the frames of a '
                'clip must be of one size.'
            )
    return [loaded[path] for path in paths]
