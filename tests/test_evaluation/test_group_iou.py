# Copyright (c) mmseg_attn contributors.
import math

import pytest
import torch
from mmseg.registry import METRICS

META = dict(
    classes=('a', 'b', 'c', 'd'),
    groups={'first': ['a', 'b'], 'rest': ['c', 'd']},
)
# Two pictures; 255 is not counted.
TRUTH = [[[0, 0, 0, 1], [1, 2, 2, 255]], [[0, 1, 2, 2]]]
PREDICTED = [[[0, 0, 1, 1], [1, 2, 0, 0]], [[0, 1, 2, 2]]]


def evaluate(meta):
    metric = METRICS.build(dict(type='mmseg_attn.GroupIoUMetric'))
    metric.dataset_meta = meta
    for predicted, truth in zip(PREDICTED, TRUTH, strict=True):
        sample = dict(
            pred_sem_seg=dict(data=torch.tensor(predicted)),
            gt_sem_seg=dict(data=torch.tensor(truth)),
        )
        metric.process({}, [sample])
    return metric.evaluate(len(TRUTH))


def test_groups_against_a_count_by_hand():
    # a: 3 of 5; b: 3 of 4; c: 3 of 4; d occurs nowhere and does not count.
    metrics = evaluate(META)
    assert metrics['mIoU first'] == pytest.approx((60 + 75) / 2)
    assert metrics['mIoU rest'] == pytest.approx(75)
    assert metrics['mIoU'] == pytest.approx((60 + 75 + 75) / 3)


def test_group_that_occurs_nowhere_is_not_a_number():
    groups = {'none': ['d']}
    assert math.isnan(evaluate({**META, 'groups': groups})['mIoU none'])


def test_without_groups_as_mmseg():
    metrics = evaluate(dict(classes=META['classes']))
    assert set(metrics) == {'aAcc', 'mIoU', 'mAcc'}


def test_unknown_class_in_a_group():
    with pytest.raises(ValueError, match="'other' names the class 'e'"):
        evaluate({**META, 'groups': {'other': ['e']}})
