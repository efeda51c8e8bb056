# Copyright (c) mmseg_attn contributors.
"""Make a small dataset folder of somebody's pictures and masks."""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..datasets.mask_classes import IGNORED, MaskSurvey, find_class_list
from ..datasets.pairs import (
    FOLDERS,
    Pair,
    find_pairs,
    read_pair,
    split_pairs,
)
from ..png import write_png
from ..visualization.overlay import make_palette

# Longest side of the working copies, in pixels.
LONGEST = 192
# What one is called who sees nothing, see largest_class.
LARGEST = 'largest class everywhere'
# More pictures than a training of minutes can see are left out.
MOST = {'train': 800, 'val': 200}


@dataclass
class _Copy:
    """A working copy; labels are as :func:`read_mask` reads the file."""

    name: str
    picture: np.ndarray
    labels: np.ndarray


def prepare_pictures(
    images: Path,
    masks: Path,
    out: Path,
    seed: int,
    depth: int | None = None,
    classes: dict | None = None,
) -> tuple[list[str], dict[str, float]]:
    """Write working copies of pictures and masks as a dataset folder.

    Masks are index pictures (grey or palette PNG, 255 is ignored), black and
    white ones (0 and 255), or show each class in a colour of its own. Folders
    ``train`` and ``val`` (or ``valid``, ``validation``) inside are taken as
    the split, and ``test`` is left out; otherwise a fifth of the pictures is
    drawn for validation.

    Args:
        images: Folder of pictures, searched to any depth.
        masks: Folder of masks with the same names.
        out: Folder to write ``images``, ``masks`` and ``dataset.json`` to.
            Nothing else is written.
        seed: Seed of the split.
        depth: Bits that 16-bit pictures use, as of
            :func:`~mmseg_attn.pictures.read_picture`.
        classes: ``classes`` and perhaps ``palette``, as in a
            ``dataset.json``. By default what such a file in or beside the
            folder of masks says, else the values found.

    Returns:
        Remarks to be shown, and the IoU in per cent of calling every pixel the
        largest class, with the keys of
        :class:`~mmseg_attn.evaluation.GroupIoUMetric`.

    Raises:
        UserError: If the pictures or masks cannot be used; says which.
    """
    pairs, notes = find_pairs(images, masks)
    splits, more = split_pairs(pairs, np.random.RandomState(seed), MOST)
    notes += more
    survey = MaskSurvey()
    copies = {
        split: [_read(pair, depth, survey) for pair in pairs]
        for split, pairs in splits.items()
    }
    found = survey.classes()
    about, where = find_class_list(masks, classes)
    if about is not None:
        found = found.named(about, where)
    names = found.names
    palette = found.palette or make_palette(len(names))
    notes.append(
        f'{len(copies["train"])} pictures to train on and '
        f'{len(copies["val"])} to validate with; {len(names)} classes: '
        + ', '.join(names)
        + f' ({IGNORED} is ignored)' * found.ignored
    )
    groups = {name: [name] for name in names}
    about = {'classes': names, 'palette': palette, 'groups': groups}
    counts = {}
    for split, items in copies.items():
        total = np.zeros(256, np.int64)
        inner = _inner_names([item.name for item in items])
        for item, name in zip(items, inner, strict=True):
            labels = found.indices(item.labels)
            total += np.bincount(labels.ravel(), minlength=256)
            for folder, *shown in (
                ('images', item.picture),
                ('masks', labels, palette),
            ):
                path = out / folder / split / f'{name}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                write_png(path, *shown)
        counts[split] = total[: len(names)]
    text = json.dumps(about, indent=1) + '\n'
    (out / 'dataset.json').write_text(text, encoding='utf-8')
    for name, train, val in zip(names, *counts.values(), strict=True):
        if val and not train:
            notes.append(
                f'Note: class {name} occurs in validation pictures only, so '
                'it cannot be learnt.'
            )
    return notes, largest_class(names, counts['val'])


def _read(pair: Pair, depth: int | None, survey: MaskSurvey) -> _Copy:
    picture, labels, palette = read_pair(pair, depth)
    height, width = labels.shape
    scale = min(1, LONGEST / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    survey.add(pair.mask, labels, palette)
    return _Copy(pair.name, picture[..., ::-1], labels)


def _inner_names(names: list[str]) -> list[str]:
    """Leave out the folder of the split, in which the copies are anyway."""
    inner = []
    for name in names:
        folder, _, rest = name.partition('/')
        inner.append(rest if rest and folder.lower() in FOLDERS else name)
    # Of train/a and training/a none could be told.
    return inner if len(set(inner)) == len(names) else names


def largest_class(names: list[str], counts: np.ndarray) -> dict[str, float]:
    """Measure one who calls every pixel the largest class.

    Args:
        names: Names of the classes.
        counts: Pixels of each.

    Returns:
        IoU in per cent, with the keys of
        :class:`~mmseg_attn.evaluation.GroupIoUMetric`.
    """
    largest = int(counts.argmax())
    share = 100.0 * counts[largest] / counts.sum()
    iou = {
        f'mIoU {name}': share * (index == largest)
        for index, name in enumerate(names)
        if counts[index]
    }
    return iou | {'mIoU': float(np.mean(list(iou.values())))}
