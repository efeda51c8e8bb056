# Copyright (c) mmseg_attn contributors.
"""Demo scenes as a dataset folder."""

import json
from itertools import islice
from pathlib import Path

from ...errors import UserError
from ...files import whole
from ...png import write_png
from .instances import coco_instances
from .render import render
from .scene import CLASSES, GROUPS, PALETTE, make_scenes


def write_folder(
    out: str | Path,
    seed: int = 0,
    train: int = 640,
    val: int = 80,
    size: int = 96,
) -> None:
    """Write scenes as an ordinary mmseg dataset folder.

    It holds ``images/{train,val}/*.png``, palette PNG masks of the same
    names in ``masks/{train,val}`` and ``dataset.json`` with class names,
    palette and class groups; for detectors, the objects in COCO's format in
    ``annotations/{train,val}.json``. The bytes depend on the arguments alone.

    Args:
        out: Folder to write, made if missing.
        seed: Seed of the layouts.
        train: Number of training scenes, a multiple of 4.
        val: Number of validation scenes, a multiple of 4.
        size: Height and width in pixels, at least 84.

    Raises:
        UserError: A number or the size is not as above, or the folder holds
            more scenes than it would then, which would mix two sets.
    """
    out = Path(out)
    # One after the other from one stream: no layout is in both splits.
    scenes = make_scenes(seed, train + val, size)
    for number in (train, val):
        # Refuses what cannot be met, before any folder is made.
        next(make_scenes(seed, number, size))
    check_empty(out, train, val)
    for split, number in (('train', train), ('val', val)):
        for folder in ('images', 'masks'):
            (out / folder / split).mkdir(parents=True, exist_ok=True)
        drawn = list(islice(scenes, number))
        names = [f'{index:05d}.png' for index in range(number)]
        for scene, name in zip(drawn, names, strict=True):
            picture, mask = render(scene)
            write_png(out / 'images' / split / name, picture)
            write_png(out / 'masks' / split / name, mask, PALETTE)
        (out / 'annotations').mkdir(exist_ok=True)
        _write_json(
            out / 'annotations' / f'{split}.json',
            coco_instances(drawn, names),
        )
    about = {
        'classes': CLASSES,
        'palette': PALETTE,
        'groups': GROUPS,
    }
    _write_json(out / 'dataset.json', about, indent=1)


def check_empty(out: Path, train: int, val: int, ending: str = '') -> None:
    """Refuse a folder with other scenes than are to be written.

    Args:
        out: The folder.
        train: Number of training scenes.
        val: Number of validation scenes.
        ending: What follows a scene's number in the names.

    Raises:
        UserError: The rest would mix with the new ones.
    """
    for split, number in (('train', train), ('val', val)):
        folder = out / 'images' / split
        new = {f'{index:05d}{ending}.png' for index in range(number)}
        left = sorted({path.name for path in folder.glob('*.png')} - new)
        if left:
            raise UserError(
                f'{folder} holds {left[0]}, which none of the {number} new '
                'scenes would replace, so that it would mix with them: remove '
                f'{folder} and the masks, or name another folder.'
            )


def _write_json(path: Path, content: dict, **options) -> None:
    text = json.dumps(content, **options) + '\n'
    with whole(path) as partial:
        partial.write_text(text, encoding='utf-8', newline='\n')
