# Copyright (c) mmseg_attn contributors.
"""Find the pictures and videos to be predicted and name their results."""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from ..errors import UserError
from ..video import VIDEOS, Stream, is_stream

PICTURES = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm')
PICTURES += ('.tif', '.tiff', '.webp')


@dataclass(frozen=True)
class Job:
    """One input with where its results go.

    Attributes:
        source: Picture, video, camera or address; of a pair the left picture.
        name: Its path below the folder it was found in, without ending.
        overlay: Picture or video to be written.
        data: The prediction itself, kind -> file, or for a video the folder of
            them.
        right: The right picture of a pair.
    """

    source: Path | Stream
    name: Path
    overlay: Path | None
    data: dict[str, Path]
    right: Path | None = None

    @property
    def is_video(self) -> bool:
        """Whether the source is a video."""
        return _is_video(self.source)

    @property
    def file_name(self) -> str:
        """The source's path below the folder it was found in."""
        if isinstance(self.source, Stream):
            return self.source.name
        return f'{self.name.as_posix()}{self.source.suffix}'

    @property
    def outputs(self) -> list[Path]:
        """All files that the job writes."""
        return [*([self.overlay] if self.overlay else []), *self.data.values()]


def find_jobs(
    inputs: Sequence[str],
    out: Path,
    save: Sequence[str] | None = None,
    overlay_format: str = 'jpg',
    endings: Mapping[str, str] = MappingProxyType({'mask': '.png'}),
    on_request: Sequence[str] = (),
) -> list[Job]:
    """Find all pictures and videos and say where their results go.

    Args:
        inputs: Files, folders, globs, numbers of cameras and URLs.
        out: Folder of the results. Paths below an input folder are kept below
            it.
        save: ``'overlay'`` and kinds of predictions. None means all of a
            picture but those on request, and the overlay of a video.
        overlay_format: ``'jpg'`` or ``'png'``, for pictures.
        endings: What the predictions themselves are called, and their folder
            -> the ending of their files.
        on_request: Those of them that must be named.

    Returns:
        In the order of the inputs, sorted within a folder.

    Raises:
        UserError: If an input does not exist or holds no picture, or if two
            results, or a result and an input, would be one file.
    """
    if out.is_file() or out.suffix.lower() in PICTURES + VIDEOS:
        raise UserError(f'--out {out} must be a folder, not a file.')
    kinds = ['overlay', *endings]
    wrong = set(save or ()) - set(kinds)
    if wrong:
        raise UserError(
            f'--save {wrong.pop()}: this model gives {", ".join(kinds)}.'
        )
    folders = {kind: out / kind for kind in kinds}
    found = {}  # dict instead of set: it keeps the order
    for text in inputs:
        for source, name in _expand(text, list(folders.values())):
            found[source, name] = None

    common = [kind for kind in kinds if kind not in on_request]
    stems = Counter((name.with_suffix(''), _is_video(s)) for s, name in found)
    jobs = []
    for source, name in found:
        video = _is_video(source)
        stem = name.with_suffix('')
        if stems[stem, video] > 1:  # a.jpg and a.png
            stem = name
        ends = dict.fromkeys(endings, '') if video else dict(endings)
        ends['overlay'] = '.mp4' if video else f'.{overlay_format}'
        outputs = {
            kind: folders[kind] / f'{stem}{ends[kind]}'
            for kind in save or (['overlay'] if video else common)
        }
        plain = name.with_suffix('')
        jobs.append(Job(source, plain, outputs.pop('overlay', None), outputs))
    _refuse_collisions(jobs)
    return jobs


def pair_up(jobs: Sequence[Job], right: str | Path | None) -> list[Job]:
    """Give each left picture its right one.

    Args:
        jobs: Jobs of the left pictures.
        right: A picture, for one job, or a folder with pictures of the left
            ones' names, in subfolders of theirs, whatever their endings.

    Returns:
        The same, with ``right``.

    Raises:
        UserError: There is no right picture for one of them, it is the left
            one itself, or a video is among them.
    """
    if right is None:
        raise UserError(
            'a stereo network needs pairs: name the right picture, or the '
            'folder of the right pictures, with --right.'
        )
    videos = [job.source for job in jobs if job.is_video]
    if videos:
        raise UserError(
            f'{videos[0]} is a video: a stereo network takes pictures, such '
            'as folders of the left and of the right frames.'
        )
    right = Path(right)
    if not right.is_dir():
        if not right.is_file():
            raise UserError(
                f'--right {right} does not exist: expected a picture, or the '
                'folder of the right pictures.'
            )
        if len(jobs) > 1:
            raise UserError(
                f'got {len(jobs)} left pictures and one right picture: '
                'expected --right to be a folder.'
            )
        return [_pair(jobs[0], right)]
    found = {}
    for path in _walk(right, []):
        if path.suffix.lower() in PICTURES:
            found.setdefault(path.relative_to(right).with_suffix(''), path)
    pairs = []
    for job in jobs:
        if job.name not in found:
            raise UserError(
                f'{job.source} has no right picture: none is named '
                f'{job.name} in {right}.'
            )
        pairs.append(_pair(job, found[job.name]))
    return pairs


def _pair(job: Job, right: Path) -> Job:
    if right.samefile(job.source):
        raise UserError(
            f'{right} is the left and the right picture: name those of the '
            'other camera with --right.'
        )
    return replace(job, right=right)


def _is_video(source: Path | Stream) -> bool:
    return isinstance(source, Stream) or source.suffix.lower() in VIDEOS


def _expand(
    text: str, skip: list[Path]
) -> Iterator[tuple[Path | Stream, Path]]:
    """Yield each source with its path below the given folder or glob."""
    path = Path(text)
    if is_stream(text):
        yield Stream(text), Path(Stream(text).name)
    elif path.is_file():
        yield path, Path(path.name)
    elif path.is_dir():
        files = [f for f in _walk(path, skip) if _is_media(f)]
        if not files:
            raise UserError(
                f'No picture or video in {path} or its subfolders (looked '
                f'for {" ".join(PICTURES + VIDEOS)}).'
            )
        for file in files:
            yield file, file.relative_to(path)
    else:
        files = sorted(Path(f) for f in glob.glob(text, recursive=True))
        files = [f for f in files if f.is_file()]
        if not files:
            raise UserError(f'No file or folder matches {text}.')
        fixed = Path(os.path.commonpath([f.parent for f in files]))
        for file in files:
            yield file, file.relative_to(fixed)


def _walk(folder: Path, skip: list[Path]) -> Iterator[Path]:
    skip = {path.resolve() for path in skip}
    seen = set()  # against links that lead back up
    for root, subfolders, names in os.walk(folder, followlinks=True):
        real = Path(root).resolve()
        if real in seen or real in skip:  # earlier results are no inputs
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(s for s in subfolders if s[0] != '.')
        yield from (Path(root, name) for name in sorted(names))


def _is_media(path: Path) -> bool:
    known = path.suffix.lower() in PICTURES + VIDEOS
    return known and not path.name.startswith('.')


def _refuse_collisions(jobs: list[Job]) -> None:
    owners = {}
    for job in jobs:
        for output in job.outputs:
            if output in owners:
                raise UserError(
                    f'{owners[output]} and {job.source} would both be '
                    f'written to {output}; give the folder above both, or '
                    'predict them into different folders (--out).'
                )
            owners[output] = job.source
    sources = {
        job.source.resolve() for job in jobs if isinstance(job.source, Path)
    }
    for output, source in owners.items():
        if output.resolve() in sources:
            raise UserError(
                f'The result of {source} would overwrite the input '
                f'{output}; choose another --out.'
            )
        for parent in output.parents:
            if parent in owners:  # the folder of a video's files
                raise UserError(
                    f'The results of {owners[parent]} and of {source} would '
                    f'share the folder {parent}; predict them into '
                    'different folders (--out).'
                )
