# Copyright (c) mmseg_attn contributors.
"""Pictures and masks of the same names, in two folders."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..pictures import read_picture, size_text
from .masks import Colour, read_mask

PICTURE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
MASK_SUFFIXES = ('.bmp', '.gif', '.png', '.tif', '.tiff')
# Names that folders of splits go by.
FOLDERS = {
    **dict.fromkeys(('train', 'training'), 'train'),
    **dict.fromkeys(('val', 'valid', 'validation'), 'val'),
    **dict.fromkeys(('test', 'testing'), 'test'),
}


@dataclass(frozen=True)
class Pair:
    """A picture and its mask.

    Attributes:
        name: Path of both in their folders, without its ending.
        picture: File of the picture.
        mask: File of the mask.
    """

    name: str
    picture: Path
    mask: Path


def find_pairs(images: Path, masks: Path) -> tuple[list[Pair], list[str]]:
    """Find pictures and the masks of the same names.

    Args:
        images: Folder of pictures, searched to any depth.
        masks: Folder of masks.

    Returns:
        The pairs in the order of their names, and remarks to be shown.

    Raises:
        UserError: A folder is missing or empty, a picture has no mask, or
            two files have one name.
    """
    pairs, missing, notes = match_files(images, masks)
    if missing:
        more = f' ({len(missing)} pictures lack one)' * (len(missing) > 1)
        raise UserError(f'{missing[0]}{more}')
    return pairs, notes


def match_files(
    images: Path, masks: Path
) -> tuple[list[Pair], list[str], list[str]]:
    """Match pictures and masks by their names.

    Args:
        images: Folder of pictures, searched to any depth.
        masks: Folder of masks.

    Returns:
        The pairs in the order of their names, a line for each picture that
        has no mask, and remarks to be shown.

    Raises:
        UserError: A folder is missing or empty, or two files have one name.
    """
    pictures = _find_files(images, PICTURE_SUFFIXES, 'pictures')
    labels = _find_files(masks, MASK_SUFFIXES, 'masks')
    pairs, missing, notes = [], [], []
    for key, path in pictures.items():
        if key in labels:
            pairs.append(Pair(key, path, labels[key]))
        else:
            missing.append(f'no mask for {path}: expected {masks / key}.png')
    unused = len(labels) - len(pairs)
    if unused:
        notes.append(f'Note: {unused} masks have no picture and are not used.')
    return pairs, missing, notes


def _find_files(
    folder: Path, suffixes: Sequence[str], what: str
) -> dict[str, Path]:
    """Find files by their path in the folder without its ending."""
    if not folder.is_dir():
        raise UserError(f'the folder of {what} does not exist: {folder}')
    found = {}
    for path in sorted(folder.rglob('*')):
        inside = path.relative_to(folder)
        hidden = any(part.startswith('.') for part in inside.parts)
        if path.suffix.lower() not in suffixes or hidden:
            continue
        key = inside.with_suffix('').as_posix()
        if key in found:
            raise UserError(
                f'{found[key]} and {path} have the same name: which of the '
                f'{what} is meant?'
            )
        found[key] = path
    if not found:
        raise UserError(
            f'no {what} in {folder}: looked for files ending in '
            f'{", ".join(suffixes)}'
        )
    return found


def read_pair(
    pair: Pair, depth: int | None
) -> tuple[np.ndarray, np.ndarray, list[Colour]]:
    """Read a picture and its mask.

    Args:
        pair: From :func:`find_pairs`.
        depth: Bits that 16-bit pictures use, as of
            :func:`~mmseg_attn.pictures.read_picture`.

    Returns:
        The picture, (H, W, 3) uint8, BGR; and the labels and the palette, as
        of :func:`~mmseg_attn.datasets.masks.read_mask`.

    Raises:
        UserError: One cannot be read, or they differ in size.
    """
    picture = read_picture(str(pair.picture), depth)
    labels, palette = read_mask(pair.mask)
    if picture.shape[:2] != labels.shape:
        raise UserError(
            f'{pair.picture} has {size_text(picture)} pixels, but its mask '
            f'{pair.mask} has {size_text(labels)}: they must be equal.'
        )
    return picture, labels, palette


def check_outside(work: Path, sources: Iterable[Path], option: str) -> None:
    """Refuse to write among somebody's pictures.

    Args:
        work: Folder for all output.
        sources: Folders of pictures and of masks.
        option: What names another folder.

    Raises:
        UserError: It lies in one of them.
    """
    inside = (work.resolve(), *work.resolve().parents)
    for source in sources:
        if source.resolve() in inside:
            raise UserError(
                f'{work} lies in {source}, where nothing shall be written; '
                f'give {option}.'
            )


def split_pairs(
    pairs: Sequence[Pair],
    random: np.random.RandomState,
    most: Mapping[str, float],
) -> tuple[dict[str, list[Pair]], list[str]]:
    """Take the split of the folders, or draw one.

    Folders ``train`` and ``val`` (or ``valid``, ``validation``) are taken as
    the split, and ``test`` is left out; otherwise a fifth of the pictures is
    drawn for validation.

    Args:
        pairs: From :func:`find_pairs`.
        random: What draws.
        most: At most so many pairs of ``train`` and of ``val`` are used.

    Returns:
        The pairs of ``train`` and of ``val``, in the order of their names,
        and remarks to be shown.

    Raises:
        UserError: There are too few.
    """
    found = {'train': [], 'val': [], 'test': [], '': []}
    names, notes = {}, []
    for pair in pairs:
        folder = pair.name.split('/')[0] if '/' in pair.name else ''
        split = FOLDERS.get(folder.lower(), '')
        found[split].append(pair)
        names.setdefault(split, folder)
    splits = {split: found[split] for split in ('train', 'val')}
    if all(splits.values()):
        folders = f'{names["train"]} and {names["val"]}'
        notes.append(f'The split is that of the folders {folders}.')
        others = len(found['test']) + len(found[''])
        if others:
            notes.append(
                f'Note: {others} pictures outside {folders} are not used.'
            )
    else:
        rest = [p for p in pairs if p not in found['test']] or list(pairs)
        if len(rest) < 2:
            raise UserError(
                f'got 1 picture ({rest[0].picture}), expected at least 2: '
                'one to train on and one to validate with.'
            )
        if len(rest) < len(pairs):
            notes.append(
                f'Note: {len(pairs) - len(rest)} pictures in {names["test"]} '
                'are not used.'
            )
        order = [rest[i] for i in random.permutation(len(rest))]
        cut = max(1, len(order) // 5)
        splits = {'train': order[cut:], 'val': order[:cut]}
        notes.append('The split is drawn with the seed: one in five for val.')
    for split, limit in most.items():
        if len(splits[split]) > limit:
            notes.append(
                f'Note: {limit} of the {len(splits[split])} {split} pictures, '
                'drawn with the seed, are used.'
            )
            chosen = random.permutation(len(splits[split]))[:limit]
            splits[split] = [splits[split][i] for i in chosen]
    return {
        s: sorted(p, key=lambda pair: pair.name) for s, p in splits.items()
    }, notes
