# Copyright (c) mmseg_attn contributors.
"""Predict pictures that are in memory or in files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from ..errors import UserError
from ..inference.batches import batches, check_batch_size
from .predictors import Segmenter
from .tasks import check_model, make_predictor, task_of

Picture = str | Path | np.ndarray


def predict(
    model: nn.Module,
    images: Picture | tuple[Picture, Picture] | Sequence,
    *,
    tta: bool = False,
    depth: int | None = None,
    batch_size: int = 1,
    scores: bool = False,
) -> object:
    """Predict one picture, or several.

    Args:
        model: As from :func:`~mmseg_attn.apis.load_model`.
        images: A path; a picture, (H, W, 3) uint8 in BGR order; for a stereo
            network a tuple of the left and the right path; or a list of these.
            Those of different sizes may stand in one list.
        tta: Average over the flips and scales of the config's
            ``tta_pipeline``.
        depth: Bits that 16-bit pictures use, as of
            :func:`~mmseg_attn.pictures.read_picture`.
        batch_size: Pictures at a time; those of one size are gathered.
        scores: Give what a segmentor finds with the probability of each
            class: ``mask`` and ``scores``, (classes, H, W) float32.

    Returns:
        What the model's predictor gives of a picture, or a list of it: of a
        segmentor the class of each pixel, (H, W) uint8, or uint16 beyond 256
        classes; of a detector mmengine's ``InstanceData`` with ``bboxes`` (N,
        4) as x1, y1, x2, y2 in pixels, ``labels`` (N,), ``scores`` (N,) and
        perhaps ``masks`` (N, H, W); of a stereo network disparities, (H, W)
        float32, in pixels.

    Raises:
        UserError: A file is no picture, or not what the model takes.
    """
    check_batch_size(batch_size)
    check_model(model)
    single = not isinstance(images, list)
    images = [images] if single else images
    pairs = task_of(model.cfg).takes_pairs
    for image in images:
        if isinstance(image, tuple) != pairs:
            expected = '(left, right) tuples' if pairs else 'single pictures'
            raise UserError(
                f'got a {type(image).__name__} among the images, expected '
                f'{expected}, or a list of them.'
            )
    predictor = make_predictor(model, tta, depth)
    if scores:
        if not isinstance(predictor, Segmenter):
            raise UserError('scores=True is for segmentors.')
        predictor.keep_scores()
    found = [None] * len(images)
    samples = enumerate(map(predictor.prepare, images))
    for batch in batches(samples, batch_size):
        places, samples = zip(*batch, strict=True)
        for place, item in zip(places, predictor(samples), strict=True):
            found[place] = item
    return found[0] if single else found
