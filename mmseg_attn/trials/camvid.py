# Copyright (c) mmseg_attn contributors.
"""CamVid as the data of a comparison."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from ..datasets.camvid import CamVidDataset
from ..errors import UserError
from .pictures import largest_class

# Configs that are alike but for the method, which stands in front: from random
# weights on a CPU, and on a GPU.
SMALL = '{}_r18-small_1xb8-3k_camvid-240x320.py'
FULL = '{}_r50-d8_1xb16-full-4k_camvid-360x480.py'


def prepare_camvid(
    root: Path, folder: Path
) -> tuple[list[str], dict[str, float]]:
    """Link pictures and masks into a dataset folder.

    Args:
        root: Folder of CamVid, as
            :class:`~mmseg_attn.datasets.CamVidDataset` takes it.
        folder: Where ``images``, ``masks`` and ``dataset.json`` go.

    Returns:
        Remarks to be shown, and the IoU in per cent of calling every pixel the
        largest class.

    Raises:
        UserError: A split is missing, or a picture has no mask.
    """
    about = CamVidDataset.METAINFO
    names = list(about['classes'])
    groups = {name: [name] for name in names}
    content = {**about, 'groups': groups}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'dataset.json').write_text(json.dumps(content, indent=1) + '\n')
    pairs = {split: _pairs(root, split) for split in ('train', 'val')}
    counts = np.zeros(256, np.int64)
    for split, found in pairs.items():
        for kind in ('images', 'masks'):
            (folder / kind / split).mkdir(parents=True)
        for picture, mask in found:
            for kind, file in (('images', picture), ('masks', mask)):
                (folder / kind / split / file.name).symlink_to(file)
            if split == 'val':
                labels = np.asarray(Image.open(mask)).ravel()
                counts += np.bincount(labels, minlength=256)
    train, val = map(len, pairs.values())
    notes = [f'CamVid: {train} pictures to train on, {val} to validate with.']
    return notes, largest_class(names, counts[: len(names)])


def _pairs(root: Path, split: str) -> list[tuple[Path, Path]]:
    prefix = dict(
        img_path=f'images/{split}', seg_map_path=f'annotations/{split}'
    )
    try:
        dataset = CamVidDataset(
            data_root=str(root.resolve()), data_prefix=prefix, pipeline=[]
        )
        items = [dataset.get_data_info(i) for i in range(len(dataset))]
    except FileNotFoundError as error:
        raise UserError(
            f'{root}: there is no {error.filename}; expected images/train and '
            'images/val, with masks (or annotations) of the same names, as '
            'tools/dataset_converters/camvid.py writes them.'
        ) from error
    pairs = [(Path(i['img_path']), Path(i['seg_map_path'])) for i in items]
    missing = [mask for _, mask in pairs if not mask.is_file()]
    if missing or not pairs:
        raise UserError(
            f'{root}: expected pictures in images/{split}, each with a mask '
            f'in masks/{split} or annotations/{split}, '
            f'got {len(pairs)} pictures, {len(missing)} of them without one'
            + (f', such as {missing[0]}.' if missing else '.')
        )
    return pairs
