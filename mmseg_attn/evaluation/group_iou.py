# Copyright (c) mmseg_attn contributors.
"""Mean IoU over groups of classes."""

import numpy as np
from mmengine.logging import print_log
from mmseg.evaluation import IoUMetric
from prettytable import PrettyTable

from ..registry import METRICS
from .areas import class_iou, total_areas


@METRICS.register_module()
class GroupIoUMetric(IoUMetric):
    """mIoU over all classes, and over each group of classes.

    The groups come from the dataset: ``metainfo['groups']`` gives for each
    group the names of its classes. A dataset without groups is measured as
    by mmseg's ``IoUMetric``. Classes that occur neither in a mask nor in a
    prediction do not count. The arguments are those of mmseg's
    ``IoUMetric``.
    """

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metrics of all pictures together.

        Args:
            results: What ``process`` kept of each picture.

        Returns:
            aAcc, mIoU and mAcc in per cent as ``IoUMetric`` gives them, and
            'mIoU GROUP' for each group.

        Raises:
            ValueError: A group names a class that there is not.
        """
        metrics = super().compute_metrics(results)
        groups = self.dataset_meta.get('groups')
        if self.format_only or not groups:
            return metrics
        right, union, *_ = total_areas(results)
        names = self.dataset_meta['classes']
        iou = dict(zip(names, class_iou(right, union), strict=True))
        table = PrettyTable(['Group', 'mIoU', 'Classes'])
        for group, names in groups.items():
            unknown = [name for name in names if name not in iou]
            if unknown:
                raise ValueError(
                    f'group {group!r} names the class {unknown[0]!r}, '
                    f'expected one of {", ".join(iou)}'
                )
            present = [iou[n] for n in names if not np.isnan(iou[n])]
            mean = float(np.mean(present)) if present else float('nan')
            metrics[f'mIoU {group}'] = round(mean, 2)
            table.add_row([group, f'{mean:.2f}', ', '.join(names)])
        print_log(f'per group results:\n{table}', 'current')
        return metrics
