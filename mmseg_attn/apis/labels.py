# Copyright (c) mmseg_attn contributors.
"""Check what the data of a config are labelled with."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from ..configs import SPLITS, load_config
from ..errors import UserError
from .reports import Report
from .tasks import task_of


def check_labels(
    config: str | Path | Config, splits: Sequence[str] = SPLITS
) -> list[Report]:
    """Read all that the datasets of a config are labelled with, and count.

    Of a segmentor every picture and label map is read, as for the model; of
    a detector its annotation files.

    Args:
        config: Path or name of a config (see
            :func:`~mmseg_attn.apis.find_config`), or a loaded one, which is
            not changed.
        splits: Some of ``'train'``, ``'val'`` and ``'test'``; one that the
            config does not have is passed over.

    Returns:
        A report of each dataset or file: what it holds and what is wrong.

    Raises:
        UserError: Files are missing, or there is nothing to read.
    """
    splits = [splits] if isinstance(splits, str) else list(splits)
    unknown = set(splits) - set(SPLITS)
    if unknown or not splits:
        raise UserError(
            f'the splits are {splits}, expected some of {", ".join(SPLITS)}.'
        )
    cfg = load_config(config)
    return list(task_of(cfg).check_data(cfg, splits))
