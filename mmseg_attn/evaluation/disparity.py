# Copyright (c) mmseg_attn contributors.
"""How far predicted disparities are from the true ones."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.evaluator import BaseMetric

from ..errors import UserError
from ..registry import METRICS


@METRICS.register_module()
class DisparityMetric(BaseMetric):
    """How far predicted disparities are from the true ones.

    Over all pixels whose true disparity is known and below
    ``max_disparity``:

    - ``EPE``: end-point error, the mean distance in pixels;
    - ``EPE_batch``: the mean over batches of each batch's mean, as PSMNet's
      code reports it on Scene Flow (batches of 8);
    - ``>1px``, ``>3px``: share in per cent that is farther away than this;
    - ``D1``: share in per cent that is farther away than 3 pixels and than
      5 % of the true disparity, as KITTI 2015 counts it (KITTI 2012 takes
      ``>3px``).

    Args:
        max_disparity: Disparity in pixels from which on a pixel does not
            count.
        kwargs: Arguments of ``mmengine.evaluator.BaseMetric``.
    """

    default_prefix = None

    def __init__(self, max_disparity: float = 192, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_disparity = max_disparity
        self._batches = 0

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Measure a batch.

        Args:
            data_batch: Not used.
            data_samples: Samples with ``pred_disparity`` and
                ``gt_disparity``, each with ``data`` (1, H, W).

        Raises:
            UserError: A sample has no true disparities.
        """
        self._batches += 1
        for sample in data_samples:
            if 'gt_disparity' not in sample:
                raise UserError(
                    f'{sample.get("img_path")} has no disparity map: the '
                    'test pipeline needs mmseg_attn.LoadDisparity.'
                )
            target = sample['gt_disparity']['data']
            found = sample['pred_disparity']['data'].to(target.device)
            counts = target < self.max_disparity
            target, found = target[counts].double(), found[counts].double()
            distance = (found - target).abs()
            far = distance > 3
            self.results.append(
                dict(
                    batch=(get_rank(), self._batches),
                    sums=torch.stack(
                        [
                            distance.new_tensor(distance.numel()),
                            distance.sum(),
                            (distance > 1).sum(),
                            far.sum(),
                            (far & (distance > 0.05 * target.abs())).sum(),
                        ]
                    ).tolist(),
                )
            )

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Compute the metrics of all pairs together.

        Args:
            results: What :meth:`process` kept.

        Returns:
            The figures above by name; NaN where no disparity is known.
        """
        batches = {}
        for item in results:
            batches.setdefault(item['batch'], []).append(item['sums'])
        batches = [
            torch.tensor(sums, dtype=torch.float64).sum(0)
            for sums in batches.values()
        ]
        total = torch.stack(batches).sum(0)
        pixels = total[0]
        means = [b[1] / b[0] for b in batches if b[0]]
        mean = sum(means) / len(means) if means else torch.nan
        shares = (100 * total[2:] / pixels).tolist()
        return {
            'EPE': float(total[1] / pixels),
            'EPE_batch': float(mean),
            **dict(zip(('>1px', '>3px', 'D1'), shares, strict=True)),
        }
