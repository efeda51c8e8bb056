# Copyright (c) mmseg_attn contributors.
"""Samples of a dataset beside the same with their labels."""

import cv2
import numpy as np
import torch
from mmengine.structures import BaseDataElement, InstanceData

from ..errors import UserError
from .instances import InstancePainter
from .overlay import Legend, overlay, with_ignored

SMALLEST = 384  # height of what is shown, so that a legend fits


class LabelPainter:
    """Draws label maps in the colours of their dataset.

    Args:
        metainfo: That of the dataset, with its ``classes`` and ``palette``.
    """

    def __init__(self, metainfo: dict) -> None:
        classes, self.palette = with_ignored(metainfo)
        self.legend = Legend(classes, self.palette)

    def __call__(
        self, picture: np.ndarray, data: BaseDataElement
    ) -> np.ndarray:
        """Draw a picture, the same under its labels, and a legend.

        Args:
            picture: (height, width, 3), BGR.
            data: Its sample, with ``gt_sem_seg``.

        Returns:
            (height, width, 3), BGR.

        Raises:
            UserError: There is no label map.
        """
        if 'gt_sem_seg' not in data:
            raise UserError(
                f'{data.img_path} comes without a label map from the '
                'pipeline: expected one with LoadAnnotations, of a '
                'segmentation dataset.'
            )
        mask = data.gt_sem_seg.data[0].numpy()
        mask = np.minimum(mask, len(self.palette) - 1).astype(np.uint8)
        picture, mask = map(_enlarge, (picture, mask))
        painted = overlay(picture, mask, self.palette, 0.6)
        return self.legend.add(
            _side_by_side(picture, painted), np.unique(mask)
        )


class SamplePainter:
    """Draws boxes and masks in the colours of their dataset.

    Args:
        metainfo: That of the dataset, with its ``classes`` and ``palette``.
    """

    def __init__(self, metainfo: dict) -> None:
        classes, palette = with_ignored(metainfo)
        self.ignored = len(classes) - 1
        self.paint = InstancePainter(
            dict(classes=classes, palette=palette), 0.6
        )

    def __call__(
        self, picture: np.ndarray, data: BaseDataElement
    ) -> np.ndarray:
        """Draw a picture, and the same with its instances, also of crowds.

        Args:
            picture: (height, width, 3), BGR.
            data: Its sample, with ``gt_instances`` and ``ignored_instances``.

        Returns:
            (height, width, 3), BGR.

        Raises:
            UserError: There are no boxes.
        """
        from mmdet.structures.bbox import get_box_tensor

        if 'gt_instances' not in data or 'bboxes' not in data.gt_instances:
            raise UserError(
                f'{data.img_path} comes without boxes from the pipeline: '
                'expected one with LoadAnnotations.'
            )
        ignored = data.ignored_instances
        ignored.labels = torch.full_like(ignored.labels, self.ignored)
        instances = InstanceData.cat([data.gt_instances, ignored])
        enlarged = _enlarge(picture)
        times = len(enlarged) / len(picture)
        instances.bboxes = times * get_box_tensor(instances.bboxes)
        if 'masks' in instances:
            instances.masks = instances.masks.resize(enlarged.shape[:2])
        return _side_by_side(enlarged, self.paint(enlarged, instances))


def _enlarge(image: np.ndarray) -> np.ndarray:
    """A small one a whole number of times."""
    times = -(-SMALLEST // len(image))
    size = [side * times for side in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)


def _side_by_side(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    gap = np.full((len(left), 8, 3), 255, np.uint8)
    return np.hstack([left, gap, right])
