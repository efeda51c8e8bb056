# Copyright (c) mmseg_attn contributors.
"""Crops that show rare classes more often."""

from typing import Any

import numpy as np
from mmcv.transforms.utils import cache_randomness
from mmseg.datasets.transforms import RandomCrop

from ..registry import TRANSFORMS


@TRANSFORMS.register_module()
class BalancedCrop(RandomCrop):
    """Crop around a pixel of a class that is drawn evenly.

    Each class of a picture is drawn as often as any other, whatever its share
    of the pixels.

    Args:
        crop_size: Height and width, in pixels.
        share: Share of the crops that are drawn so; the others lie anywhere.
        kwargs: Arguments of mmseg's ``RandomCrop``.
    """

    def __init__(
        self,
        crop_size: int | tuple[int, int],
        share: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(crop_size, **kwargs)
        self.share = share

    @cache_randomness
    def crop_bbox(self, results: dict) -> tuple[int, int, int, int]:
        """Draw where to crop.

        Args:
            results: A sample with ``img`` and ``gt_seg_map``.

        Returns:
            First row, last row + 1, first column, last column + 1.
        """
        labels = results['gt_seg_map']
        classes = np.unique(labels[labels != self.ignore_index])
        if not len(classes) or np.random.rand() >= self.share:
            return super().crop_bbox(results)
        rows, columns = np.nonzero(labels == np.random.choice(classes))
        place = np.random.randint(len(rows))
        box = []
        for at, side, length in zip(
            (rows[place], columns[place]),
            self.crop_size,
            labels.shape,
            strict=True,
        ):
            first = at - np.random.randint(side)
            first = int(np.clip(first, 0, max(0, length - side)))
            box += [first, first + side]
        return tuple(box)
