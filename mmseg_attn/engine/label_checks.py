# Copyright (c) mmseg_attn contributors.
"""Look at some pictures and label maps before a training or test starts."""

import time
from collections.abc import Iterator, Sized

import numpy as np
from mmcv.transforms import LoadAnnotations
from mmengine.dataset import Compose

from ..datasets.check_annotations import CheckAnnotations
from ..datasets.label_survey import LabelSurvey
from ..datasets.leftovers import leftovers
from ..datasets.pictures import LoadPicture
from ..errors import UserError
from .samples import named_files

# Pictures and label maps that are read of each dataset; as long as a class
# has not been seen, more of the latter for some seconds.
PICTURES, MAPS, SECONDS = 4, 32, 5


def check_label_maps(dataset: Sized) -> list[str]:
    """Refuse label maps whose values cannot be meant.

    Args:
        dataset: A dataset, perhaps in wrappers; what has no label maps is
            passed over.

    Returns:
        What is worth a warning, a line each: classes that never occur, and
        files that are not used.

    Raises:
        UserError: A file cannot be used, or an ignored label stands where a
            class is meant.
    """
    return [
        f'{_name(leaf)}: {line}'
        for leaf in single_datasets(dataset)
        for line in _check(leaf)
    ]


def single_datasets(dataset: object) -> Iterator[object]:
    """Go through the datasets in wrappers.

    Args:
        dataset: A dataset or a wrapper of one or many.

    Yields:
        Each that is no wrapper.
    """
    inner = getattr(dataset, 'datasets', None) or [
        getattr(dataset, 'dataset', None)
    ]
    if inner[0] is None:
        yield dataset
        return
    for item in inner:
        yield from single_datasets(item)


def _name(dataset: object) -> str:
    root = getattr(dataset, 'data_root', None) or ''
    return f'{type(dataset).__name__} {root}'.rstrip()


def _check(dataset: object) -> list[str]:
    pipeline = getattr(dataset, 'pipeline', None)
    steps = pipeline.transforms if isinstance(pipeline, Compose) else []
    of_maps = [
        s for s in steps if isinstance(s, (LoadAnnotations, CheckAnnotations))
    ]
    if not any(isinstance(s, CheckAnnotations) for s in of_maps):
        return []
    check = next(s for s in of_maps if isinstance(s, CheckAnnotations))
    of_pictures = [s for s in steps if isinstance(s, LoadPicture)]
    survey = LabelSurvey(
        dataset.metainfo.get('classes') or range(check.num_classes),
        check.ignore_index,
        changed=bool(dataset.reduce_zero_label or dataset.label_map),
    )
    started = time.monotonic()
    total = len(dataset)
    for count, index in enumerate(_spread(total)):
        enough = count >= MAPS and not survey.black_and_white()
        late = time.monotonic() - started > SECONDS
        if enough and (late or not survey.absent()):
            break
        with named_files(dataset, index):
            results = dataset.get_data_info(index)
            for step in (of_pictures if count < PICTURES else []) + of_maps:
                results = step(results)
        survey.add(results['seg_map_path'], np.unique(results['gt_seg_map']))
    for line in survey.black_and_white():
        raise UserError(f'{_name(dataset)}: {line}')
    notes = survey.two_kinds() + leftovers(dataset)
    absent = survey.absent()
    if absent and survey.maps == total:
        notes.append(
            f'no label map has {", ".join(absent)}: it is not learnt there, '
            'and no IoU of it is counted.'
        )
    return notes


def _spread(total: int) -> list[int]:
    """All numbers below, such that any beginning is spread over them."""
    step = max(1, -(-total // MAPS))
    return [n for first in range(step) for n in range(first, total, step)]
