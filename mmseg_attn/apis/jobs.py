# Copyright (c) mmseg_attn contributors.
"""Find the pictures and videos to be predicted and name their results."""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError

PICTURES = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm')
PICTURES += ('.tif', '.tiff', '.webp')
VIDEOS = ('.avi', '.gif', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg')
VIDEOS += ('.webm', '.wmv')


@dataclass(frozen=True)
class Job:
    """One input with where its results go.

    Attributes:
        source (Path): Picture or video.
        overlay (Path | None): Picture or video to be written.
        data (Path | None): The prediction itself: a file, or for a video the
            folder of them.
    """

    source: Path
    overlay: Path | None
    data: Path | None

    @property
    def is_video(self) -> bool:
        return _is_video(self.source)

    @property
    def outputs(self) -> list[Path]:
        return [path for path in (self.overlay, self.data) if path]


def find_jobs(
    inputs: Sequence[str],
    out: Path,
    save: Sequence[str] | None = None,
    overlay_format: str = 'jpg',
    kind: str = 'mask',
    ending: str = '.png',
) -> list[Job]:
    """Find all pictures and videos and say where their results go.

    Args:
        inputs (Sequence[str]): Files, folders and globs.
        out (Path): Folder of the results. Paths below an input folder are
            kept below it.
        save (Sequence[str] | None): ``'overlay'``, ``kind`` or both. None
            means both of a picture and the overlay of a video.
        overlay_format (str): ``'jpg'`` or ``'png'``, for pictures.
        kind (str): What the predictions themselves are called, and their
            folder.
        ending (str): Of their files.

    Returns:
        list[Job]: In the order of the inputs, sorted within a folder.

    Raises:
        UserError: If an input does not exist or holds no picture, or if two
            results, or a result and an input, would be one file.
    """
    if out.is_file() or out.suffix.lower() in PICTURES + VIDEOS:
        raise UserError(f'--out {out} must be a folder, not a file.')
    wrong = set(save or ()) - {'overlay', kind}
    if wrong:
        raise UserError(
            f'--save {wrong.pop()}: this model gives overlay and {kind}.'
        )
    folders = {'overlay': out / 'overlay', kind: out / kind}
    found = {}  # dict instead of set: it keeps the order
    for text in inputs:
        for source, name in _expand(text, list(folders.values())):
            found[source, name] = None

    stems = Counter((name.with_suffix(''), _is_video(s)) for s, name in found)
    jobs = []
    for source, name in found:
        video = _is_video(source)
        stem = name.with_suffix('')
        if stems[stem, video] > 1:  # a.jpg and a.png
            stem = name
        kinds = save or (['overlay'] if video else ['overlay', kind])
        endings = {
            'overlay': '.mp4' if video else f'.{overlay_format}',
            kind: '' if video else ending,
        }
        outputs = {
            kind: folders[kind] / f'{stem}{endings[kind]}' for kind in kinds
        }
        jobs.append(Job(source, outputs.get('overlay'), outputs.get(kind)))
    _refuse_collisions(jobs)
    return jobs


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS


def _expand(text: str, skip: list[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield each file with its path below the given folder or glob."""
    path = Path(text)
    if path.is_file():
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
    sources = {job.source.resolve() for job in jobs}
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
