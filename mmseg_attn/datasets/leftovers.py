# Copyright (c) mmseg_attn contributors.
"""Files beside those of a dataset, which it passes over without a word."""

import os
from collections.abc import Iterator
from pathlib import Path

PICTURE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


def leftovers(dataset: object) -> list[str]:
    """Name the pictures and masks that a dataset passes over.

    Args:
        dataset: Dataset of pictures and label maps, all of a folder; one of a
            list, and any other, is passed over.

    Returns:
        A line for pictures whose names end otherwise (``.JPG`` beside
        ``.jpg``), and one for masks without a picture.
    """
    prefix = getattr(dataset, 'data_prefix', None) or {}
    folders = [prefix.get('img_path'), prefix.get('seg_map_path')]
    listed = getattr(dataset, 'ann_file', '')
    chosen = getattr(dataset, '_indices', None) is not None
    if listed or chosen or not hasattr(dataset, 'img_suffix'):
        return []
    if not all(folder and os.path.isdir(folder) for folder in folders):
        return []
    images, masks = map(os.path.abspath, folders)
    if os.path.commonpath([images, masks]) in (images, masks):
        return []  # of one folder the masks would be taken for pictures
    ending, mask_ending = dataset.img_suffix, dataset.seg_map_suffix
    names = list(_files(images))
    taken = {n.removesuffix(ending) for n in names if n.endswith(ending)}
    other = [
        name
        for name in names
        if not name.endswith(ending)
        and Path(name).suffix != Path(ending).suffix
        and Path(name).suffix.lower() in PICTURE_SUFFIXES
    ]
    lone = [
        name
        for name in _files(masks)
        if name.endswith(mask_ending)
        and name.removesuffix(mask_ending) not in taken
    ]
    notes = []
    if other:
        endings = ', '.join(sorted({Path(name).suffix for name in other}))
        notes.append(
            f'{len(other)} pictures in {folders[0]} end in {endings} and are '
            f'not used, such as {other[0]}: img_suffix is {ending!r}.'
        )
    if lone:
        notes.append(
            f'{len(lone)} masks in {folders[1]} have no picture and are not '
            f'used, such as {lone[0]}.'
        )
    return notes


def _files(folder: str) -> Iterator[str]:
    """Paths in a folder, as a dataset lists them: none that is hidden."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith('.'))
        for name in sorted(names):
            if not name.startswith('.'):
                path = os.path.join(place, name)
                yield os.path.relpath(path, folder).replace(os.sep, '/')
