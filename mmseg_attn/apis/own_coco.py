# Copyright (c) mmseg_attn contributors.
"""Make a dataset of somebody's pictures with annotations of COCO's form."""

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine.config import ConfigDict

from ..datasets.coco import check_coco, check_usable, read_coco
from ..errors import UserError
from ..files import whole
from ..markdown import markdown_table
from ..visualization.overlay import make_palette
from .own_data import class_warnings


@dataclass
class OwnInstances:
    """Pictures and annotations that were read and checked.

    Attributes:
        folders: Folders of the pictures of ``train`` and of ``val``, which
            stay where they are.
        classes: Names of the classes.
        contents: Annotation file of each: pictures, annotations and
            categories.
        notes: What to tell the user.
    """

    folders: dict[str, Path]
    classes: tuple[str, ...]
    contents: dict[str, dict]
    notes: list[str]

    @property
    def splits(self) -> dict[str, list[dict]]:
        """Pictures of each split; to train on, only those with instances."""
        having = {a['image_id'] for a in self.contents['train']['annotations']}
        train, val = (self.contents[s]['images'] for s in ('train', 'val'))
        return {'train': [i for i in train if i['id'] in having], 'val': val}

    def count(self, split: str) -> tuple[list[int], list[int]]:
        """Count the instances of each class, and the pictures with some.

        Args:
            split: ``train`` or ``val``.
        """
        content = self.contents[split]
        names = {c['id']: c['name'] for c in content['categories']}
        found = [
            (a['image_id'], names[a['category_id']])
            for a in content['annotations']
        ]
        instances = Counter(name for _, name in found)
        pictures = Counter(name for _, name in set(found))
        return (
            [instances[name] for name in self.classes],
            [pictures[name] for name in self.classes],
        )

    def side(self) -> int:
        """The median of the pictures' longer sides, in pixels."""
        pictures = self.splits['train'] + self.splits['val']
        return int(np.median([max(i['width'], i['height']) for i in pictures]))

    def warnings(self) -> list[str]:
        """What may spoil a training, a line each."""
        train, val = (self.count(s)[0] for s in ('train', 'val'))
        return class_warnings(self.classes, train, val, 'AP')


def read_own_instances(
    images: Path,
    annotations: Path,
    *,
    val_images: Path | None = None,
    val_annotations: Path | None = None,
    share: float = 0.2,
    seed: int = 0,
    masks: bool = True,
) -> OwnInstances:
    """Read and check all annotations, and the sizes of their pictures.

    Args:
        images: Folder of the pictures.
        annotations: Their file in COCO's format, which names the classes.
        val_images: Folder of the pictures to validate with, ``images`` by
            default.
        val_annotations: Their file. By default a share of the pictures of
            the first is drawn.
        share: Which share, 0 to 1.
        seed: Seed of the draw.
        masks: Whether the model learns masks, too.

    Returns:
        What was found. Nothing is written.

    Raises:
        UserError: An annotation or a picture cannot be used; says which.
    """
    folders = {'train': images, 'val': val_images or images}
    report = check_coco(annotations, images, masks=masks, sizes=True)
    check_usable({annotations: report})
    notes = report.warnings()
    contents = {'train': _read(annotations)}
    if val_annotations:
        notes += check_coco(
            val_annotations,
            folders['val'],
            classes=report.categories,
            masks=masks,
            ordered=False,
            sizes=True,
        ).warnings()
        contents['val'] = _read(val_annotations)
        # MMDetection numbers the classes by the file.
        places = {name: i for i, name in enumerate(report.categories)}
        contents['val']['categories'].sort(
            key=lambda category: places.get(category['name'], len(places))
        )
    else:
        contents = _split(contents['train'], share, seed)
    for name, content in contents.items():
        if not content['annotations']:
            raise UserError(
                f'none of the {len(content["images"])} pictures for {name} '
                'has an annotation: annotate more, or try another --seed.'
            )
    data = OwnInstances(folders, report.categories, contents, notes)
    bare = len(contents['train']['images']) - len(data.splits['train'])
    if bare:
        notes.append(
            f'{bare} pictures to train on have no annotation and are left out'
        )
    return data


def write_own_instances(data: OwnInstances, folder: Path) -> None:
    """Write the annotation files.

    Args:
        data: From :func:`read_own_instances`.
        folder: Where ``annotations/{train,val}.json`` are written. The
            pictures stay where they are.
    """
    for name, content in data.contents.items():
        with whole(folder / 'annotations' / f'{name}.json') as path:
            path.write_text(json.dumps(content), encoding='utf-8')


def instance_table(data: OwnInstances) -> str:
    """Show the classes and how often they occur.

    Args:
        data: What was read.

    Returns:
        A table in Markdown: number of instances and of pictures that have
        some, by split.
    """
    columns = [data.classes]
    for split in ('train', 'val'):
        columns += data.count(split)
    header = ['class', 'train', 'pictures', 'val', 'pictures']
    rows = [list(map(str, row)) for row in zip(*columns, strict=True)]
    return markdown_table(header, rows)


def instance_dataset(data: OwnInstances, folder: Path, split: str) -> dict:
    """Make the config of a dataset, without a pipeline.

    Args:
        data: What was read.
        folder: Where :func:`write_own_instances` wrote.
        split: ``train`` or ``val``.

    Returns:
        Entries of MMDetection's ``CocoDataset``.
    """
    colours = make_palette(len(data.classes))
    return dict(
        type='CocoDataset',
        data_root='',
        metainfo=dict(
            classes=tuple(data.classes),
            palette=[tuple(colour) for colour in colours],
        ),
        ann_file=os.path.abspath(folder / 'annotations' / f'{split}.json'),
        data_prefix=dict(img=os.path.abspath(data.folders[split]) + os.sep),
    )


def set_classes(model: ConfigDict, number: int) -> None:
    """Give the heads of a detector another number of classes.

    Args:
        model: Its config, which is changed.
        number: How many.
    """
    for head in _class_heads(model):
        head.num_classes = number


def _class_heads(config: object) -> Iterator[ConfigDict]:
    if isinstance(config, dict):
        for key, value in config.items():
            heads = value if isinstance(value, list) else [value]
            if key in ('bbox_head', 'mask_head'):
                yield from (h for h in heads if 'num_classes' in h)
        roi_head = config.get('roi_head')
        if roi_head:
            yield from _class_heads(roi_head)


def _read(path: Path) -> dict:
    """An annotation file with what pycocotools asks beyond the format.

    Annotations are numbered from 1 and have iscrowd, which not all programs
    write.
    """
    content = read_coco(path)
    for number, item in enumerate(content['annotations'], start=1):
        item.update(id=number, iscrowd=int(bool(item.get('iscrowd'))))
    return content


def _split(content: dict, share: float, seed: int) -> dict[str, dict]:
    """Draw pictures to validate with: 'train' and 'val', each as a file."""
    images = content['images']
    if len(images) < 2:
        raise UserError(
            f'got {len(images)} pictures, expected at least 2: some to train '
            'on, some to validate with.'
        )
    number = min(max(round(share * len(images)), 1), len(images) - 1)
    ids = sorted(image['id'] for image in images)
    val = set(random.Random(seed).sample(ids, number))
    return {
        name: {
            **content,
            'images': [i for i in images if (i['id'] in val) is wanted],
            'annotations': [
                a
                for a in content['annotations']
                if (a['image_id'] in val) is wanted
            ],
        }
        for name, wanted in (('train', False), ('val', True))
    }
