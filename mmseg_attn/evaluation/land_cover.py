# Copyright (c) mmseg_attn contributors.
"""The figures of remote sensing papers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.logging import print_log
from mmseg.evaluation import IoUMetric
from prettytable import PrettyTable

from ..registry import METRICS
from .areas import total_areas


@METRICS.register_module()
class LandCoverMetric(IoUMetric):
    """The figures of remote sensing papers: OA, AA, Kappa, mF1 and mIoU.

    From the counts of all pictures together. Classes that occur neither in a
    label nor in a prediction do not count in a mean.

    Args:
        averaged_classes: Names of the classes whose mean AA, mF1 and mIoU are;
            pixels of the others still count as right or wrong. Papers on
            Vaihingen and Potsdam leave clutter out. None means all classes.
        kwargs: Arguments of ``mmseg.evaluation.IoUMetric``, but for
            ``iou_metrics`` and ``beta``: the figures are these. A number
            ``nan_to_num`` takes the place of each that is NaN, so that absent
            classes do count in a mean.

    Raises:
        ValueError: ``iou_metrics`` or ``beta`` is given.
    """

    def __init__(
        self, averaged_classes: Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        for name in ('iou_metrics', 'beta'):
            if name in kwargs:
                raise ValueError(
                    f'{type(self).__name__} has no choice of figures, got '
                    f'{name}={kwargs[name]!r}: leave it out, or, where it '
                    'comes from a base config, give _delete_=True.'
                )
        super().__init__(**kwargs)
        self.averaged_classes = averaged_classes

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metrics of all pictures together.

        Args:
            results: What ``process`` kept of each picture.

        Returns:
            In per cent: ``OA`` (share of pixels that are right), ``AA`` (mean
            share of each class's pixels that are right), ``Kappa`` (Cohen's),
            ``mF1`` and ``mIoU``; without labelled pixels NaN, or
            ``nan_to_num``.

        Raises:
            ValueError: ``averaged_classes`` names a class that there is not.
        """
        if self.format_only:
            return super().compute_metrics(results)
        chosen = self._chosen()
        right, union, predicted, labelled = total_areas(results)
        total = labelled.sum()
        with np.errstate(invalid='ignore', divide='ignore'):
            classes = {
                'recall': right / labelled,
                'F1': 2 * right / (predicted + labelled),
                'IoU': right / union,
            }
            observed = right.sum() / total
            expected = (predicted * labelled).sum() / total**2
            kappa = (observed - expected) / (1 - expected)
        classes = {k: self._filled(v) for k, v in classes.items()}
        self._print(classes, chosen)
        metrics = {
            'OA': observed,
            'AA': _mean(classes['recall'][chosen]),
            # One class, all of it right: nothing to agree on by chance.
            'Kappa': kappa if expected < 1 else observed,
            'mF1': _mean(classes['F1'][chosen]),
            'mIoU': _mean(classes['IoU'][chosen]),
        }
        return {
            k: round(100 * float(self._filled(v)), 2)
            for k, v in metrics.items()
        }

    def _filled(self, values: np.ndarray) -> np.ndarray:
        if self.nan_to_num is None:
            return values
        return np.where(np.isnan(values), self.nan_to_num, values)

    def _chosen(self) -> list[int]:
        names = list(self.dataset_meta['classes'])
        wanted = self.averaged_classes
        wanted = names if wanted is None else wanted
        for name in wanted:
            if name not in names:
                raise ValueError(
                    f'averaged_classes names {name!r}, expected some of '
                    f'{", ".join(names)}'
                )
        return [names.index(name) for name in wanted]

    def _print(
        self, classes: dict[str, np.ndarray], chosen: list[int]
    ) -> None:
        table = PrettyTable(['Class', *classes])
        names = list(self.dataset_meta['classes'])
        rows = list(zip(names, *classes.values(), strict=True))
        # Both, so that no figure is taken for the other.
        for kept in sorted({len(chosen), len(names)}):
            means = [
                _mean(v[chosen] if kept == len(chosen) else v)
                for v in classes.values()
            ]
            rows.append((f'mean of {kept}', *means))
        for name, *row in rows:
            table.add_row([name, *(f'{100 * v:.2f}' for v in row)])
        print_log(f'per class results:\n{table}', 'current')


def _mean(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return present.mean() if len(present) else float('nan')
