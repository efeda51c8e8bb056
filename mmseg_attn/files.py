# Copyright (c) mmseg_attn contributors.
"""Write files that are whole or not there."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
