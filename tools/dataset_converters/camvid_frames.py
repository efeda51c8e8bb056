# Copyright (c) mmseg_attn contributors.
"""Take the frames around CamVid's stills out of its four videos.

The stills are a second apart. The videos have 30 frames a second; VIDEOS is
their folder, with the names of the release::

    01TP_extract.avi   0001TP_006690.png ...
    0005VD.MXF         Seq05VD_f00000.png ...
    0006R0.MXF         0006R0_f00930.png ...
    0016E5.MXF         0016E5_00390.png ...

The stills are those that ``camvid.py`` wrote to DATA/images/{train,val,test}.
Where a video's numbers begin is found by comparing all stills with all frames,
in small; then each still is compared with the frame of its number. What was
found is printed, and a video that does not hold its stills is refused. The
frames go to DATA/frames, of a still's size and named as if they were stills:
the clips of the configs find them there with ``frame_path='frames'`` and
``frame_step=1``. A run that was interrupted can be started again.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from mmseg_attn.errors import UserError, run_command
from mmseg_attn.files import whole
from mmseg_attn.progress import quiet_imports
from mmseg_attn.video import VIDEOS, read_video

with quiet_imports():
    from mmseg_attn.datasets.camvid import VIDEO_NAMES

STILL = re.compile(r'((.+?)_f?)(\d+)')
SPLITS = ('train', 'val', 'test')


def find_stills(data: Path) -> dict[str, dict[int, Path]]:
    """List the stills of each sequence.

    Args:
        data: Folder that ``camvid.py`` wrote.

    Returns:
        Name of the sequence -> number -> still.

    Raises:
        UserError: There is none.
    """
    found = {}
    for split in SPLITS:
        for path in sorted((data / 'images' / split).glob('*.png')):
            named = STILL.fullmatch(path.stem)
            if named:
                found.setdefault(named[2], {})[int(named[3])] = path
    if not found:
        raise UserError(
            f'no still such as 0001TP_006690.png in {data}/images/'
            '{train,val,test}: run camvid.py first.'
        )
    return found


def find_video(folder: Path, sequence: str) -> Path | None:
    """Find the video of a sequence, whatever the case of its ending.

    Args:
        folder: Of the videos.
        sequence: Name of the sequence, as its stills have it.

    Returns:
        The file, or None.
    """
    names = {sequence, VIDEO_NAMES.get(sequence, sequence)}
    for path in sorted(folder.iterdir()):
        if path.stem in names and path.suffix.lower() in VIDEOS:
            return path
    return None


def small(picture: np.ndarray) -> np.ndarray:
    """A grey picture of 48 x 36 pixels, in a row."""
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    size = (48, 36)
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA).ravel()


def differences(
    stills: dict[int, Path], video: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Compare all stills with all frames.

    Args:
        stills: Those of a sequence.
        video: Its video.

    Returns:
        The stills' numbers (M,), and the mean difference of each still to
        each frame, (M, N) in grey levels of 255.
    """
    with read_video(video) as frames:
        thumbs = np.stack(
            [
                small(frame)
                for frame in track(
                    frames, f'{video.name}: compared', frames.frames or None
                )
            ]
        ).astype(np.int16)
    rows = [
        np.abs(thumbs - small(cv2.imread(str(path))).astype(np.int16)).mean(1)
        for path in stills.values()
    ]
    return np.array(list(stills)), np.stack(rows)


def best_offset(numbers: np.ndarray, difference: np.ndarray) -> int:
    """Find what is to be taken from a still's number to get its frame.

    Args:
        numbers: Of the stills, (M,).
        difference: From :func:`differences`.

    Returns:
        The offset with the least mean difference, of those that leave nine of
        ten stills within the video.
    """
    stills, frames = difference.shape
    rows = np.arange(stills)

    def mean(offset: int) -> float:
        index = numbers - offset
        inside = (index >= 0) & (index < frames)
        if inside.sum() < 0.9 * stills:
            return np.inf
        return difference[rows[inside], index[inside]].mean()

    return min(range(numbers.min() - frames, numbers.max() + 1), key=mean)


def match(
    sequence: str, stills: dict[int, Path], video: Path, tolerance: float
) -> dict[int, int]:
    """Find the frame of each still, and say how well they fit.

    Args:
        sequence: Its name.
        stills: Number -> still.
        video: The video.
        tolerance: Mean difference, in grey levels of 255, up to which a still
            is a frame.

    Returns:
        Number of the still -> index of the frame, of those that fit.

    Raises:
        UserError: No still fits.
    """
    numbers, difference = differences(stills, video)
    offset = best_offset(numbers, difference)
    found, own, nearer = {}, [], 0
    for number, row in zip(numbers.tolist(), difference, strict=True):
        index = number - offset
        here = row[index] if 0 <= index < len(row) else np.inf
        if here > tolerance:
            continue
        found[number] = index
        own.append(here)
        # Standing cars make neighbours alike: another one is clearly nearer.
        around = row[max(index - 5, 0) : index + 6]
        nearer += bool(around.min() < 0.5 * here - 0.5)
    if not found:
        raise UserError(
            f'{video} does not hold the stills of {sequence}: at the best '
            f'offset, {offset}, none is within {tolerance:g} grey levels of '
            'its frame.'
        )
    print(
        f'{sequence}: {len(found)} of {len(stills)} stills are frames of '
        f'{video.name}, number - {offset}; mean difference '
        f'{np.mean(own):.2f} of 255, at most {max(own):.2f}; '
        f'{nearer} are nearer to another frame within 5.'
    )
    return found


def frames_around(
    found: dict[int, int], around: int, step: int
) -> dict[int, int]:
    """List the frames to write.

    Args:
        found: From :func:`match`.
        around: How many on each side of a still.
        step: How far apart they are.

    Returns:
        Index of the frame -> number in its name, without the stills' own.
    """
    wanted = {}
    for number, index in found.items():
        for distance in range(-around, around + 1):
            if number + distance * step not in found:
                wanted[index + distance * step] = number + distance * step
    return wanted


def write_frames(
    wanted: dict[int, int], still: Path, video: Path, folder: Path
) -> int:
    """Write frames as if they were stills.

    Args:
        wanted: From :func:`frames_around`.
        still: One of the sequence, for size and name.
        video: The video.
        folder: Where they go.

    Returns:
        How many were written; what is there already is left alone.

    Raises:
        UserError: The video has another shape than the still.
    """
    named, written = STILL.fullmatch(still.stem), 0
    height, width = cv2.imread(str(still)).shape[:2]
    for index, frame in enumerate(_frames(video)):
        if index not in wanted:
            continue
        if frame.shape[0] * width != frame.shape[1] * height:
            raise UserError(
                f'{video} has frames of {frame.shape[1]} x {frame.shape[0]} '
                f'pixels, {still} is {width} x {height}: expected the same '
                'shape.'
            )
        name = f'{named[1]}{wanted[index]:0{len(named[3])}d}{still.suffix}'
        path = folder / name
        if path.exists():
            continue
        if frame.shape[0] != height:
            frame = cv2.resize(
                frame, (width, height), interpolation=cv2.INTER_AREA
            )
        with whole(path) as partial:
            content = cv2.imencode(still.suffix, frame)[1]
            partial.write_bytes(content.tobytes())
        written += 1
    return written


def _frames(video: Path) -> Iterator[np.ndarray]:
    with read_video(video) as frames:
        yield from track(
            frames, f'{video.name}: written', frames.frames or None
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('videos', type=Path, help='folder of the videos')
    parser.add_argument('--data', type=Path, default=Path('data/camvid'))
    parser.add_argument(
        '--around', type=int, default=2, help='frames on each side of a still'
    )
    parser.add_argument(
        '--step', type=int, default=1, help='how far apart these are'
    )
    parser.add_argument(
        '--tolerance',
        type=float,
        default=8,
        help='mean difference, in grey levels of 255, up to which a still is '
        'a frame',
    )
    args = parser.parse_args()
    if args.around < 1 or args.step < 1:
        raise UserError('expected --around and --step of 1 or more.')
    if not args.videos.is_dir():
        raise UserError(f'there is no folder {args.videos}.')
    sequences = find_stills(args.data)
    videos = {name: find_video(args.videos, name) for name in sequences}
    if not any(videos.values()):
        raise UserError(
            f'no video in {args.videos} is called as one of '
            f'{", ".join(VIDEO_NAMES.get(n, n) for n in sequences)}.'
        )
    folder = args.data / 'frames'
    folder.mkdir(exist_ok=True)
    for name, stills in sequences.items():
        if videos[name] is None:
            print(f'{name}: no video, {len(stills)} stills stay alone.')
            continue
        found = match(name, stills, videos[name], args.tolerance)
        wanted = frames_around(found, args.around, args.step)
        still = stills[next(iter(found))]
        written = write_frames(wanted, still, videos[name], folder)
        print(f'{name}: {written} frames written to {folder}.')


if __name__ == '__main__':
    run_command(main)
