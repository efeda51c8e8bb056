# Copyright (c) mmseg_attn contributors.
"""What a result depends on, and whether that is the same as before."""

import hashlib
from pathlib import Path


def fingerprint(folder: Path) -> str:
    """Hash the names and contents of all files in a folder.

    Args:
        folder: Searched to any depth.

    Returns:
        Digits of the sha256.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob('*')):
        if path.is_file():
            content = path.read_bytes()
            name = path.relative_to(folder).as_posix()
            digest.update(f'{name}\0{len(content)}\0'.encode() + content)
    return digest.hexdigest()


def difference_of(earlier: dict, now: dict) -> str:
    """Name the first setting in which two trainings differ.

    Args:
        earlier: The settings that one was made with, as JSON has them.
        now: Those that are given, which are others.

    Returns:
        What was and what is.
    """
    if not isinstance(earlier, dict) or earlier.get('data') != now['data']:
        return 'the pictures, the masks or the split are not the same'
    old, new = _flat(earlier), _flat(now)
    key = next(k for k in [*old, *new] if old.get(k) != new.get(k))
    missing = 'not set'
    return f'{key} was {old.get(key, missing)}, is {new.get(key, missing)}'


def _flat(value: object, name: str = '') -> dict[str, object]:
    """Nested settings by their full names."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or not value:
        return {name: value}
    prefix = name and f'{name}.'
    return {
        key: leaf
        for inner, part in value.items()
        for key, leaf in _flat(part, f'{prefix}{inner}').items()
    }
