# Copyright (c) mmseg_attn contributors.
"""Make a dataset of somebody's folders of pictures and masks."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..datasets.mask_classes import (
    IGNORED,
    MaskClasses,
    MaskSurvey,
    find_class_list,
)
from ..datasets.masks import read_mask
from ..datasets.pairs import Pair, find_pairs, read_pair, split_pairs
from ..files import whole
from ..progress import make_progress
from ..visualization.overlay import make_palette, save_mask

# A class with a smaller share of the pixels is a rare one.
RARE = 0.02


@dataclass
class OwnData:
    """Pictures and masks that were read, each of them.

    Attributes:
        images: Folder of the pictures, which stay where they are.
        classes: What the masks show.
        splits: Pairs of ``train`` and of ``val``.
        pixels: By split, pixels of each class.
        pictures: By split, how many pictures have each class.
        sizes: Sides of the pictures, (height, width) -> how many.
        notes: What to tell the user.
    """

    images: Path
    classes: MaskClasses
    splits: dict[str, list[Pair]]
    notes: list[str]
    pixels: dict[str, np.ndarray] = field(default_factory=dict)
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    sizes: Counter = field(default_factory=Counter)

    @property
    def palette(self) -> list[list[int]]:
        """Colours of the classes, RGB: the masks' own where they have some."""
        return self.classes.palette or make_palette(len(self.classes.names))

    def side(self) -> int:
        """The median of the pictures' shorter sides, in pixels."""
        return int(np.median([min(s) for s in self.sizes.elements()]))

    def warnings(self) -> list[str]:
        """What may spoil a training, a line each."""
        train, val = (self.pixels[split] for split in ('train', 'val'))
        return class_warnings(self.classes.names, train, val, 'IoU')

    def rare(self) -> list[str]:
        """Names of the classes that few of the training pixels show."""
        pixels = self.pixels['train']
        least = RARE * pixels.sum()
        return [
            name
            for name, count in zip(self.classes.names, pixels, strict=True)
            if 0 < count < least
        ]


def class_warnings(
    names: Sequence[str], train: Sequence, val: Sequence, measure: str
) -> list[str]:
    """Say which classes cannot be learnt or measured.

    Args:
        names: Names of the classes.
        train: How often each occurs in what is trained on.
        val: The same of what it is validated with.
        measure: What is measured of a class.

    Returns:
        A line each.
    """
    found = []
    for name, learnt, seen in zip(names, train, val, strict=True):
        if not learnt and seen:
            found.append(
                f'class {name} occurs in validation pictures only, so it '
                'cannot be learnt'
            )
        elif not learnt:
            found.append(f'class {name} never occurs')
        elif not seen:
            found.append(
                f'class {name} is in no validation picture, so its '
                f'{measure} cannot be measured'
            )
    return found


def read_own_data(
    images: Path,
    masks: Path,
    *,
    seed: int = 0,
    classes: dict | None = None,
    depth: int | None = None,
) -> OwnData:
    """Read all pictures and masks of two folders, and say what they show.

    Masks are index pictures (grey or palette PNG, 255 is ignored), black and
    white ones (0 and 255), or show each class in a colour of its own. Folders
    ``train`` and ``val`` in both are the split, else it is drawn.

    Args:
        images: Folder of pictures, searched to any depth.
        masks: Folder of masks with the same names.
        seed: Seed of the split.
        classes: ``classes`` and perhaps ``palette``, as in a
            ``dataset.json``. By default what such a file in or beside the
            folder of masks says, else the values found.
        depth: Bits that 16-bit pictures use.

    Returns:
        What was found. Nothing is written.

    Raises:
        UserError: A picture or mask cannot be used; says which.
    """
    pairs, notes = find_pairs(images, masks)
    splits, more = split_pairs(pairs, np.random.RandomState(seed), {})
    classes, where = find_class_list(masks, classes)
    survey = MaskSurvey()
    sizes, counted = Counter(), {}
    with make_progress() as progress:
        task = progress.add_task(
            'reading pictures and masks', total=sum(map(len, splits.values()))
        )
        for split, chosen in splits.items():
            for pair in chosen:
                counted[split, pair] = _read(pair, depth, survey, sizes)
                progress.advance(task)
    found = survey.classes()
    if classes is not None:
        found = found.named(classes, where)
    data = OwnData(images.resolve(), found, splits, notes + more, sizes=sizes)
    for split in splits:
        pixels = np.zeros(len(found.names), np.int64)
        pictures = pixels.copy()
        for (of, _), (values, counts) in counted.items():
            if of == split:
                indices = found.indices(values)
                known = indices != IGNORED
                np.add.at(pixels, indices[known], counts[known])
                pictures[np.unique(indices[known])] += 1
        data.pixels[split], data.pictures[split] = pixels, pictures
    return data


def _read(
    pair: Pair, depth: int | None, survey: MaskSurvey, sizes: Counter
) -> tuple[np.ndarray, np.ndarray]:
    """Values of a mask and their counts."""
    _, labels, palette = read_pair(pair, depth)
    survey.add(pair.mask, labels, palette)
    sizes[labels.shape] += 1
    return np.unique(labels, return_counts=True)


def write_own_data(data: OwnData, folder: Path) -> None:
    """Write what a dataset needs beside the pictures: masks, lists, classes.

    Args:
        data: From :func:`read_own_data`.
        folder: Where ``masks``, ``train.txt``, ``val.txt`` and
            ``dataset.json`` are written. The pictures stay where they are.
    """
    palette = data.palette
    for split, pairs in data.splits.items():
        names = []
        for pair in pairs:
            name = pair.picture.resolve().relative_to(data.images).as_posix()
            names.append(name)
            path = folder / 'masks' / f'{name}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            labels, _ = read_mask(pair.mask)
            with whole(path) as partial:
                save_mask(partial, data.classes.indices(labels), palette)
        text = '\n'.join(names) + '\n'
        (folder / f'{split}.txt').write_text(text, encoding='utf-8')
    about = {'classes': data.classes.names, 'palette': palette}
    text = json.dumps(about, indent=1) + '\n'
    (folder / 'dataset.json').write_text(text, encoding='utf-8')
