# Copyright (c) mmseg_attn contributors.
"""A page on which a pointer shows where each position looks."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from ..datasets.truth import find_masks, read_truth
from ..errors import UserError
from ..progress import make_progress
from ..visualization.attention_page import (
    picture_data,
    room_for_maps,
    write_page,
)
from .attention_blocks import pack_maps
from .predictors import Segmenter
from .tasks import SEGMENTOR, check_model, check_task
from .test_pipelines import test_pipeline
from .tracing import record


def write_attention_page(
    model: nn.Module,
    pictures: Sequence[str | Path],
    out: str | Path,
    *,
    masks: str | Path | None = None,
    layers: str = '',
    title: str = '',
) -> list[int]:
    """Write a page of HTML that shows where the pointed-at position looks.

    The page needs no server and no network. It has less than 10 MB for each
    picture; where the maps of all cells need more, cells are put together to
    blocks, and the page says so.

    Args:
        model: A segmentor with ``cfg`` set, as from
            :func:`~mmseg_attn.apis.load_model`.
        pictures: Their files.
        out: The page.
        masks: Folder of the pictures' masks, of the same names. Values are
            class indices, 255 is ignored; or each class has its colour.
        layers: Use only layers whose name in the model begins so, as of
            :func:`~mmseg_attn.apis.attention_maps`.
        title: What the page is about. By default the config's name.

    Returns:
        How many cells a block has along each side, for each picture; 1 where
        each cell has a map of its own.

    Raises:
        UserError: The model, a picture or a mask cannot be used.
    """
    check_model(model)
    check_task(model.cfg, SEGMENTOR)
    if not pictures or isinstance(pictures, (str, Path)):
        raise UserError(f'pictures is {pictures!r}, expected a list of files.')
    pictures = [Path(picture) for picture in pictures]
    about = {key: model.dataset_meta[key] for key in ('classes', 'palette')}
    truths = None
    if masks is not None:
        reduced = any(
            step.get('reduce_zero_label') for step in test_pipeline(model.cfg)
        )
        truths = read_truth(find_masks(pictures, Path(masks)), about, reduced)
    steps = []
    write_page(
        out,
        _traced(model, pictures, truths, layers, steps),
        title=title or Path(model.cfg.filename or 'model').stem,
        **about,
    )
    return steps


def _traced(
    model: nn.Module,
    pictures: Sequence[Path],
    truths: Sequence[np.ndarray] | None,
    layers: str,
    steps: list[int],
) -> Iterator[dict]:
    """Trace picture by picture; note how large the blocks are."""
    segmenter = Segmenter(model)
    with make_progress() as progress:
        task = progress.add_task('pictures', total=len(pictures))
        for index, path in enumerate(pictures):
            recording = record(model, path, layers)
            picture = recording.sample.picture
            (found,) = segmenter([recording.sample])
            shown = {'prediction': found}
            if truths is not None:
                truth = shown['truth'] = truths[index]
                if truth.shape != picture.shape[:2]:
                    raise UserError(
                        f'{path} has {picture.shape[1]} x {picture.shape[0]} '
                        f'pixels, but its mask has {truth.shape[1]} x '
                        f'{truth.shape[0]}: they must be equal.'
                    )
            data = picture_data(path.name, picture, shown)
            data['notes'] = recording.notes
            data['maps'] = pack_maps(recording, room_for_maps(data))
            steps.append(data['maps']['step'])
            yield data
            progress.advance(task)
