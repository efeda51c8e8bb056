# Copyright (c) mmseg_attn contributors.
"""IoU of each class beside their mean."""

import logging

from mmengine.logging import print_log
from mmseg.evaluation import IoUMetric

from ..registry import METRICS
from .areas import class_iou, total_areas

# A class whose IoU is below is hardly found, in per cent.
HARDLY = 1.0


@METRICS.register_module()
class ClassIoUMetric(IoUMetric):
    """mIoU, and the IoU of each class; says which class is hardly found.

    The arguments are those of mmseg's ``IoUMetric``.
    """

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metrics of all pictures together.

        Args:
            results: What ``process`` kept of each picture.

        Returns:
            aAcc, mIoU and mAcc in per cent as ``IoUMetric`` gives them, and
            'IoU NAME' for each class; NaN where it occurs neither in a mask
            nor in a prediction.
        """
        metrics = super().compute_metrics(results)
        if self.format_only:
            return metrics
        right, union, _, labelled = total_areas(results)
        iou = class_iou(right, union)
        names = self.dataset_meta['classes']
        for name, value in zip(names, iou.tolist(), strict=True):
            metrics[f'IoU {name}'] = round(value, 2)
        rows = zip(names, iou, labelled, strict=True)
        hardly = [name for name, value, n in rows if n and value < HARDLY]
        if hardly:
            print_log(
                f'never or hardly found: {", ".join(hardly)}. A longer '
                'training helps, larger crops for small things, and crops '
                'around rare classes: mmseg_attn.BalancedCrop, --balance of '
                'train.',
                'current',
                level=logging.WARNING,
            )
        return metrics
