# Copyright (c) mmseg_attn contributors.
"""IoU of each class beside their mean."""

import logging

import numpy as np
from mmengine.logging import print_log
from mmseg.evaluation import IoUMetric

from ..registry import METRICS


@METRICS.register_module()
class ClassIoUMetric(IoUMetric):
    """mIoU, and the IoU of each class; says which class is never found.

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
        intersection, union, _, truth = (
            np.sum([np.asarray(areas[i]) for areas in results], axis=0)
            for i in range(4)
        )
        with np.errstate(invalid='ignore'):
            iou = 100 * intersection / union
        names = self.dataset_meta['classes']
        for name, value in zip(names, iou.tolist(), strict=True):
            metrics[f'IoU {name}'] = round(value, 2)
        pairs = zip(names, intersection, truth, strict=True)
        never = [name for name, found, there in pairs if there and not found]
        if never:
            print_log(
                f'never found: {", ".join(never)}. A longer training helps, '
                'larger crops for small things, and crops around rare '
                'classes: mmseg_attn.BalancedCrop, --balance of train.',
                'current',
                level=logging.WARNING,
            )
        return metrics
