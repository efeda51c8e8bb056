# Copyright (c) mmseg_attn contributors.
"""Make a small dataset folder of somebody's pictures and masks."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..datasets.label_survey import LabelSurvey
from ..datasets.masks import PaletteCheck, read_mask
from ..datasets.pictures import read_picture, size_text
from ..datasets.scenes.png import write_png
from ..errors import UserError
from ..visualization.overlay import make_palette

PICTURE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
MASK_SUFFIXES = ('.bmp', '.gif', '.png', '.tif', '.tiff')
IGNORED = 255
# Longest side of the working copies, in pixels.
LONGEST = 192
# More pictures than a training of minutes can see are left out.
MOST = {'train': 800, 'val': 200}
MOST_CLASSES = 64
# Names that folders of splits go by.
FOLDERS = {
    **dict.fromkeys(('train', 'training'), 'train'),
    **dict.fromkeys(('val', 'valid', 'validation'), 'val'),
    **dict.fromkeys(('test', 'testing'), 'test'),
}


@dataclass
class _Pair:
    name: str
    picture: Path
    mask: Path


@dataclass
class _Copy:
    """A working copy.

    Labels are as in the user's file; a colour is -1 minus its RGB number.
    """

    name: str
    mask: Path
    picture: np.ndarray
    labels: np.ndarray
    palette: list[tuple[int, int, int]]


def prepare_pictures(
    images: Path,
    masks: Path,
    out: Path,
    seed: int,
    depth: int | None = None,
) -> tuple[list[str], dict[str, float]]:
    """Write working copies of pictures and masks as a dataset folder.

    Masks are index pictures (grey or palette PNG, 255 is ignored), black and
    white ones (0 and 255), or show each class in a colour of its own. The
    classes are the values found. Folders ``train`` and ``val`` (or ``valid``,
    ``validation``) inside are taken as the split, and ``test`` is left out;
    otherwise a fifth of the pictures is drawn for validation.

    Args:
        images: Folder of pictures, searched to any depth.
        masks: Folder of masks with the same names.
        out: Folder to write ``images``, ``masks`` and ``dataset.json`` to.
            Nothing else is written.
        seed: Seed of the split.
        depth: Bits that 16-bit pictures use, as of
            :func:`~mmseg_attn.datasets.pictures.read_picture`.

    Returns:
        Remarks to be shown, and the IoU in per cent of calling every pixel the
        largest class, with the keys of
        :class:`~mmseg_attn.evaluation.GroupIoUMetric`.

    Raises:
        UserError: If the pictures or masks cannot be used; says which.
    """
    pairs, notes = _find_pairs(images, masks)
    splits = _split(pairs, np.random.RandomState(seed), notes)
    copies = {
        split: [_read(pair, depth) for pair in pairs]
        for split, pairs in splits.items()
    }
    _compare_palettes(copies)
    values, ignored = _find_values(copies)
    names = _names(values)
    palette = _palette(values, splits['train'][0].mask)
    notes.append(
        f'{len(copies["train"])} pictures to train on and '
        f'{len(copies["val"])} to validate with; {len(names)} classes: '
        + ', '.join(names)
        + f' ({IGNORED} is ignored)' * ignored
    )
    about = {'classes': names, 'palette': palette, 'groups': {}}
    if len(names) <= 6:  # columns of the table
        about['groups'] = {name: [name] for name in names}
    counts = {}
    for split, items in copies.items():
        total = np.zeros(256, np.int64)
        for folder in ('images', 'masks'):
            (out / folder / split).mkdir(parents=True)
        for item in items:
            labels = np.full(item.labels.shape, IGNORED, np.uint8)
            for index, value in enumerate(values):
                labels[item.labels == value] = index
            total += np.bincount(labels.ravel(), minlength=256)
            write_png(out / f'images/{split}/{item.name}.png', item.picture)
            write_png(out / f'masks/{split}/{item.name}.png', labels, palette)
        counts[split] = total[: len(names)]
    text = json.dumps(about, indent=1) + '\n'
    (out / 'dataset.json').write_text(text, encoding='utf-8')
    for name, train, val in zip(names, *counts.values(), strict=True):
        if val and not train:
            notes.append(
                f'Note: class {name} occurs in validation pictures only, so '
                'it cannot be learnt.'
            )
    return notes, _largest_class(names, counts['val'])


def _find_pairs(images: Path, masks: Path) -> tuple[list[_Pair], list[str]]:
    pictures = _find_files(images, PICTURE_SUFFIXES, 'pictures')
    labels = _find_files(masks, MASK_SUFFIXES, 'masks')
    missing = [key for key in pictures if key not in labels]
    if missing:
        more = f' ({len(missing)} pictures lack one)' * (len(missing) > 1)
        raise UserError(
            f'no mask for {pictures[missing[0]]}: expected '
            f'{masks / missing[0]}.png{more}'
        )
    notes = []
    unused = len(labels) - len(pictures)
    if unused:
        notes.append(f'Note: {unused} masks have no picture and are not used.')
    pairs = [_Pair(key, pictures[key], labels[key]) for key in pictures]
    return pairs, notes


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


def _split(
    pairs: list[_Pair], random: np.random.RandomState, notes: list[str]
) -> dict[str, list[_Pair]]:
    found = {'train': [], 'val': [], 'test': [], '': []}
    names = {}
    for pair in pairs:
        folder = pair.name.split('/')[0] if '/' in pair.name else ''
        split = FOLDERS.get(folder.lower(), '')
        found[split].append(pair)
        names.setdefault(split, folder)
    splits = {split: found[split] for split in MOST}
    if all(splits.values()):
        folders = f'{names["train"]} and {names["val"]}'
        notes.append(f'The split is that of the folders {folders}.')
        others = len(found['test']) + len(found[''])
        if others:
            notes.append(
                f'Note: {others} pictures outside {folders} are not used.'
            )
    else:
        rest = [p for p in pairs if p not in found['test']] or pairs
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
    for split, most in MOST.items():
        if len(splits[split]) > most:
            notes.append(
                f'Note: {most} of the {len(splits[split])} {split} pictures, '
                'drawn with the seed, are used.'
            )
            chosen = random.permutation(len(splits[split]))[:most]
            splits[split] = [splits[split][i] for i in chosen]
    return {
        s: sorted(p, key=lambda pair: pair.name) for s, p in splits.items()
    }


def _read(pair: _Pair, depth: int | None) -> _Copy:
    picture = read_picture(str(pair.picture), depth)
    labels, palette = read_mask(pair.mask)
    if picture.shape[:2] != labels.shape:
        raise UserError(
            f'{pair.picture} has {size_text(picture)} pixels, but its mask '
            f'{pair.mask} has {size_text(labels)}: they must be equal.'
        )
    height, width = labels.shape
    scale = min(1, LONGEST / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    name = pair.name.replace('/', '__')
    return _Copy(name, pair.mask, picture[..., ::-1], labels, palette)


def _compare_palettes(copies: dict[str, list[_Copy]]) -> None:
    check = PaletteCheck(IGNORED)
    for item in (item for split in copies.values() for item in split):
        if item.palette:
            check(
                item.mask,
                np.unique(item.labels),
                item.palette,
            )


def _find_values(copies: dict[str, list[_Copy]]) -> tuple[list[int], bool]:
    """Find the labels of the classes, and whether 255 marks ignored pixels.

    Masks saved as RGB are turned into indices if there is no colour in them.
    """
    items = [item for split in copies.values() for item in split]
    in_rgb = [item for item in items if item.labels.min() < 0]
    if in_rgb and len(in_rgb) < len(items):
        index = next(i for i in items if i.labels.min() >= 0)
        raise UserError(
            f'the mask of {in_rgb[0].name} is in RGB and that of {index.name} '
            'is not: expected all masks in the same format.'
        )
    found = np.unique(np.concatenate([np.unique(i.labels) for i in items]))
    rgb = _rgb(found)
    if in_rgb and (rgb == rgb[:, :1]).all():
        for item in items:
            item.labels = -1 - item.labels & 255
        found = np.unique(rgb[:, 0])
    found = found.tolist()
    if len(found) > MOST_CLASSES + 1:
        raise UserError(
            f'the masks hold {len(found)} different values, expected at most '
            f'{MOST_CLASSES} classes. Masks must hold one value for a class: '
            'photographs, JPEG files and smoothed edges do not.'
        )
    # Black and white is a drawing of two classes.
    ignored = IGNORED in found and found != [0, IGNORED]
    if found == [0, 1, IGNORED]:
        _refuse_two_kinds(items)
    values = [v for v in found if not (ignored and v == IGNORED)]
    if len(values) < 2:
        raise UserError(
            f'the masks hold one class only (the value {values or found}): '
            'expected at least two, of which one may be background.'
        )
    return values, ignored


def _refuse_two_kinds(items: list[_Copy]) -> None:
    """Refuse masks of which some draw the object with 1, some with 255."""
    survey = LabelSurvey(('background', 'foreground'), IGNORED)
    for item in items:
        survey.add(item.mask, np.unique(item.labels))
    for line in survey.two_kinds():
        raise UserError(line)


def _rgb(labels: Sequence[int]) -> np.ndarray:
    numbers = -1 - np.asarray(labels)
    return np.stack(
        [numbers >> 16 & 255, numbers >> 8 & 255, numbers & 255], 1
    )


def _names(values: list[int]) -> list[str]:
    if values in ([0, 1], [0, IGNORED]):
        return ['background', 'foreground']
    if values[0] < 0:
        return [f'#{-1 - value:06x}' for value in values]
    return [f'class {value}' for value in values]


def _palette(values: list[int], mask: Path) -> list[list[int]]:
    """Take the masks' own colours where they tell the classes apart."""
    if values[0] < 0:
        return _rgb(values).tolist()
    with Image.open(mask) as image:
        own = image.getpalette() if image.mode == 'P' else None
    if own:
        own = np.resize(own, (len(own) // 3, 3)).tolist()
        if max(values) < len(own):
            colours = [own[value] for value in values]
            if len(set(map(tuple, colours))) == len(colours):
                return colours
    return make_palette(len(values))


def _largest_class(names: list[str], counts: np.ndarray) -> dict[str, float]:
    largest = int(counts.argmax())
    share = 100.0 * counts[largest] / counts.sum()
    iou = {
        f'mIoU {name}': share * (index == largest)
        for index, name in enumerate(names)
        if counts[index]
    }
    return iou | {'mIoU': float(np.mean(list(iou.values())))}
