# Copyright (c) mmseg_attn contributors.
"""Write files that are whole or not there."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from .errors import UserError


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Give a place to write to that becomes ``path`` only when complete.

    If the block raises or is interrupted, what it wrote is removed and an
    earlier ``path`` is left as it was. What a killed process left behind is
    replaced by the next one that writes ``path``.

    Args:
        path: The file or folder to be written. Its parent folders are made.

    Yields:
        A hidden name beside it, with the same suffix.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # OpenCV takes a '%' in a name for a numbered series of pictures.
    stem = path.stem.replace('%', '_')
    partial = path.with_name(f'.{stem}.partial{path.suffix}')
    _remove(partial)
    try:
        yield partial
        # A folder cannot be replaced in one step, and not by a file.
        if path.is_dir() and partial.is_dir():
            shutil.rmtree(path)
        os.replace(partial, path)
    finally:
        _remove(partial)


@contextmanager
def gathered(
    folder: str | Path, is_main: Callable[[], bool] = lambda: True
) -> Iterator[Path]:
    """Give a folder to write to whose files appear when all are written.

    If the block raises or is interrupted, none of them appears. Files of the
    same names are replaced one by one; others in the folder stay.

    Args:
        folder: Where the files are to be. It is made.
        is_main: Asked at the end: whether this process, of several that
            write, is the one that brings the files there.

    Yields:
        A hidden folder in it, which is there.
    """
    folder = Path(folder)
    partial = folder / '.partial'
    partial.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        found = sorted(partial.rglob('*')) if is_main() else []
        for path in (path for path in found if path.is_file()):
            target = folder / path.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
    finally:
        if is_main():
            _remove(partial)


def check_writable(folder: str | Path) -> None:
    """See before long work that a folder, there or not, can be written to.

    Args:
        folder: The folder, which is not made.

    Raises:
        OSError: It cannot be made, or not written to.
    """
    place = Path(folder)
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise NotADirectoryError(f'{place} is a file, expected a folder.')
    with TemporaryFile(dir=place):
        pass


def check_file(path: str | Path) -> None:
    """See before long work that a file, there or not, can be written.

    Args:
        path: The file, which is not made.

    Raises:
        UserError: It cannot.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f'{path} is a folder, expected the name of a file.')
    try:
        check_writable(path.parent)
    except OSError as error:
        reason = error.strerror or str(error).rstrip('.')
        raise UserError(
            f'{path} cannot be written ({reason}): name another folder.'
        ) from error


def find_best(folder: str | Path) -> str | None:
    """Find the best weights of a training.

    Args:
        folder: Where it wrote.

    Returns:
        What mmengine's ``save_best`` left last, or None.
    """
    found = sorted(Path(folder).glob('best_*.pth'), key=os.path.getmtime)
    return str(found[-1]) if found else None


def set_aside(path: Path) -> Path:
    """Mark a result as of a part of its source only.

    Args:
        path: A file or folder.

    Returns:
        Its new name, which ends with '_incomplete'. What was there before is
        replaced.
    """
    aside = path.with_name(f'{path.stem}_incomplete{path.suffix}')
    _remove(aside)
    return path.replace(aside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
