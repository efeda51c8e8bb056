# Copyright (c) mmseg_attn contributors.
"""A folder that says itself which classes it has."""

import os
from pathlib import Path
from typing import Any

from mmseg.datasets import BaseSegDataset

from ..registry import DATASETS
from .class_info import check_class_info, read_class_info


@DATASETS.register_module()
class FolderDataset(BaseSegDataset):
    """A folder that says itself which classes it has, in ``dataset.json``.

    The file holds ``classes`` (names), ``palette`` (RGB colours) and
    optionally ``groups`` (name of a group: names of its classes, see
    :class:`~mmseg_attn.evaluation.GroupIoUMetric`), as
    ``python -m mmseg_attn scenes`` writes it.

    Args:
        data_root: The folder with ``dataset.json``.
        img_suffix: Ending of the pictures' names.
        seg_map_suffix: Ending of the masks' names.
        metainfo: Meta data, which take precedence over ``dataset.json``.
        kwargs: Arguments of ``mmseg.datasets.BaseSegDataset``.

    Raises:
        UserError: ``dataset.json`` is missing or names no classes.
    """

    def __init__(
        self,
        data_root: str,
        img_suffix: str = '.png',
        seg_map_suffix: str = '.png',
        metainfo: dict | None = None,
        **kwargs: Any,
    ) -> None:
        path = Path(data_root, 'dataset.json')
        about = read_class_info(path)
        about = {**about, **(metainfo or {})}
        if not os.path.isfile(str(about['classes'])):  # a list of names
            check_class_info(about, str(path))
        if not about.get('palette'):
            about.pop('palette', None)  # mmseg makes one
        super().__init__(
            data_root=data_root,
            img_suffix=img_suffix,
            seg_map_suffix=seg_map_suffix,
            metainfo=about,
            **kwargs,
        )
