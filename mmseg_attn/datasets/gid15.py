# Copyright (c) mmseg_attn contributors.
"""GID: 15 classes of the fine set, and 5 of the large one."""

from typing import Any

from mmseg.datasets import BaseSegDataset

from ..registry import DATASETS


@DATASETS.register_module()
class GID15Dataset(BaseSegDataset):
    """Land cover of the fine GID set: 15 classes, unlabelled ignored (255).

    ``tools/dataset_converters/gid15.py`` writes the folder from the ten
    labelled Gaofen-2 pictures.

    Args:
        img_suffix: Ending of the pictures' names.
        seg_map_suffix: Ending of the label maps' names.
        kwargs: Arguments of ``mmseg.datasets.BaseSegDataset``.

    Source: Tong et al., Land-cover classification with high-resolution remote
    sensing images using transferable deep models,
    https://arxiv.org/abs/1807.05713.
    """

    METAINFO = {
        'classes': (
            'industrial land',
            'urban residential',
            'rural residential',
            'traffic land',
            'paddy field',
            'irrigated land',
            'dry cropland',
            'garden plot',
            'arbor woodland',
            'shrub land',
            'natural grassland',
            'artificial grassland',
            'river',
            'lake',
            'pond',
        ),
        'palette': [
            [200, 0, 0],
            [250, 0, 150],
            [200, 150, 150],
            [250, 150, 150],
            [0, 200, 0],
            [150, 250, 0],
            [150, 200, 150],
            [200, 0, 200],
            [150, 0, 250],
            [150, 150, 250],
            [250, 200, 0],
            [200, 200, 0],
            [0, 0, 200],
            [0, 150, 200],
            [0, 200, 250],
        ],
    }

    def __init__(
        self,
        img_suffix: str = '.png',
        seg_map_suffix: str = '.png',
        **kwargs: Any,
    ) -> None:
        super().__init__(
            img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs
        )


@DATASETS.register_module()
class GID5Dataset(GID15Dataset):
    """Land cover of the large GID set: 5 classes, all else ignored (255).

    ``tools/dataset_converters/gid15.py --classes 5`` writes the folder from
    the 150 Gaofen-2 pictures, or as many as there are. Arguments as of
    :class:`GID15Dataset`. Where papers count what is not labelled as a sixth
    class, figures are others.
    """

    METAINFO = {
        'classes': ('built-up', 'farmland', 'forest', 'meadow', 'water'),
        'palette': [
            [255, 0, 0],
            [0, 255, 0],
            [0, 255, 255],
            [255, 255, 0],
            [0, 0, 255],
        ],
    }
