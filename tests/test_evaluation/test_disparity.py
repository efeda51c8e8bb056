# Copyright (c) mmseg_attn contributors.
import math

import numpy as np
import pytest
import torch

from mmseg_attn.errors import UserError
from mmseg_attn.evaluation import DisparityMetric


def sample(found, target):
    return {
        'pred_disparity': {'data': torch.tensor([found])},
        'gt_disparity': {'data': torch.tensor([target])},
    }


def test_by_hand():
    """Errors 0, 2, 4 (at 100: within 5 %), 8 (at 10), and three unknown."""
    metric = DisparityMetric()
    metric.process(
        {},
        [
            sample([[5.0, 7.0, 104.0]], [[5.0, 5.0, 100.0]]),
            sample([[18.0, 9.0, 9.0]], [[10.0, math.inf, 192.0]]),
        ],
    )
    metric.process({}, [sample([[1.0]], [[1.5]])])
    metric.process({}, [sample([[1.0]], [[math.inf]])])
    found = metric.evaluate(4)
    assert found['EPE'] == pytest.approx((0 + 2 + 4 + 8 + 0.5) / 5)
    assert found['EPE_batch'] == pytest.approx((14 / 4 + 0.5) / 2)
    assert found['>1px'] == pytest.approx(60)
    assert found['>3px'] == pytest.approx(40)
    assert found['D1'] == pytest.approx(20)


@pytest.mark.parametrize(
    'target, error, expected',
    [  # errors of both signs; shares beyond 1 px, 3 px, and 3 px and 5 %
        (10.0, 1.0, (0, 0, 0)),
        (10.0, -1.25, (100, 0, 0)),
        (10.0, 3.0, (100, 0, 0)),
        (10.0, -3.25, (100, 100, 100)),
        (80.0, 4.0, (100, 100, 0)),
        (80.0, -4.25, (100, 100, 100)),
        (160.0, 7.75, (100, 100, 0)),
        (160.0, 8.25, (100, 100, 100)),
        (50.0, 2.75, (100, 0, 0)),  # 5.5 %
    ],
)
def test_bounds(target, error, expected):
    """Of the true disparity, and beyond them only."""
    metric = DisparityMetric()
    metric.process({}, [sample([[target + error]], [[target]])])
    found = metric.evaluate(1)
    assert (found['>1px'], found['>3px'], found['D1']) == expected
    assert found['EPE'] == abs(error)


def test_against_numpy():
    rng = np.random.default_rng(0)
    metric = DisparityMetric(max_disparity=64)
    errors = []
    for _ in range(3):
        found, target = rng.uniform(0, 80, (2, 1, 6, 7)).astype('f4')
        counts = target < 64
        errors.append(np.abs(found - target)[counts])
        metric.process(
            {},
            [
                {
                    'pred_disparity': {'data': torch.tensor(found)},
                    'gt_disparity': {'data': torch.tensor(target)},
                }
            ],
        )
    found = metric.evaluate(3)
    every = np.concatenate(errors)
    assert found['EPE'] == pytest.approx(every.mean(), rel=1e-6)
    assert found['>3px'] == pytest.approx(100 * (every > 3).mean())
    means = [item.mean() for item in errors]
    assert found['EPE_batch'] == pytest.approx(np.mean(means), rel=1e-6)


def test_nothing_known():
    metric = DisparityMetric()
    metric.process({}, [sample([[1.0]], [[math.inf]])])
    assert all(math.isnan(value) for value in metric.evaluate(1).values())
    with pytest.raises(UserError, match='has no disparity map'):
        metric.process({}, [{'pred_disparity': {}, 'img_path': 'a.png'}])
