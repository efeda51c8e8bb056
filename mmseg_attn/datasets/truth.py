# Copyright (c) mmseg_attn contributors.
"""Masks of pictures that somebody names, as the classes of a model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from .mask_classes import IGNORED, MaskClasses
from .masks import read_mask
from .pairs import MASK_SUFFIXES


def find_masks(pictures: Sequence[Path], masks: Path) -> list[Path]:
    """Find the masks of pictures.

    Args:
        pictures: Files of the pictures.
        masks: Folder of masks that have the pictures' names, but perhaps for
            the ending.

    Returns:
        The mask of each.

    Raises:
        UserError: One is not there.
    """
    if not masks.is_dir():
        raise UserError(f'the folder of masks does not exist: {masks}')
    found = []
    for picture in pictures:
        named = [masks / f'{picture.stem}{ending}' for ending in MASK_SUFFIXES]
        there = [path for path in named if path.is_file()]
        if not there:
            raise UserError(
                f'no mask for {picture}: expected {masks / picture.stem}.png'
            )
        found.append(there[0])
    return found


def read_truth(
    masks: Sequence[Path], about: dict, reduce_zero_label: bool = False
) -> list[np.ndarray]:
    """Read masks as indices of a model's classes.

    Args:
        masks: Their files. Values are class indices, or 0 and 255 in all of
            them where there are two classes; or they show the classes in the
            colours of the palette.
        about: ``classes`` and ``palette`` of the model.
        reduce_zero_label: Whether 0 is ignored and 1 the first class, in masks
            of indices.

    Returns:
        (H, W) uint8 of each, 255 where nothing counts.

    Raises:
        UserError: A mask cannot be read, or has a value that is no class.
    """
    read = [read_mask(path)[0] for path in masks]
    values = np.unique(np.concatenate([np.unique(each) for each in read]))
    names = list(about['classes'])
    kind = MaskClasses(values.tolist(), names, None, True, grey=False)
    known = kind.values_of(about, "the model's classes")
    if reduce_zero_label and values[0] >= 0:
        known = [value + 1 for value in known]
        read = [np.where(each == 0, IGNORED, each) for each in read]
    kind.values = known
    for path, labels in zip(masks, read, strict=True):
        strange = labels[~np.isin(labels, [*known, IGNORED])]
        if len(strange):
            value = int(strange[0])
            if value < 0:
                value = f'the colour #{-1 - value:06x}'
            raise UserError(
                f"the mask {path} holds {value}, which is none of the model's "
                f'{len(names)} classes, {", ".join(map(str, names))}.'
            )
    return [kind.indices(labels) for labels in read]
