# Copyright (c) mmseg_attn contributors.
"""Check what the data of a config are labelled with."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine.config import Config

from ..configs import SPLITS, load_config
from .reports import Report
from .tasks import task_of


def check_labels(
    config: str | Path | Config, splits: Sequence[str] = SPLITS
) -> Iterator[Report]:
    """Read all that the datasets of a config are labelled with, and count.

    Of a segmentor every picture and label map is read, as for the model; of
    a detector its annotation files.

    Args:
        config: Path or name of a config (see
            :func:`~mmseg_attn.apis.find_config`), or a loaded one, which is
            not changed.
        splits: Some of ``'train'``, ``'val'`` and ``'test'``; one that the
            config does not have is passed over.

    Yields:
        A report of each dataset or file: what it holds and what is wrong.

    Raises:
        UserError: Files are missing, or there is nothing to read.
    """
    cfg = load_config(config)
    yield from task_of(cfg).check_data(cfg, splits)
