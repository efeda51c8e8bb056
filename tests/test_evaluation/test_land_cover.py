# Copyright (c) mmseg_attn contributors.
import re

import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric

from mmseg_attn.evaluation import LandCoverMetric

CLASSES = ('a', 'b', 'c', 'd')


def evaluate(pairs, kind=LandCoverMetric, **kwargs):
    metric = kind(**kwargs)
    metric.dataset_meta = dict(classes=CLASSES)
    for prediction, label in pairs:
        sample = dict(
            pred_sem_seg=dict(data=torch.as_tensor(prediction)[None]),
            gt_sem_seg=dict(data=torch.as_tensor(label)[None]),
        )
        metric.process({}, [sample])
    return metric.evaluate(len(pairs))


def confusion(pairs):
    matrix = np.zeros((4, 4))
    for prediction, label in pairs:
        for p, t in zip(prediction.flat, label.flat, strict=True):
            if t != 255:
                matrix[t, p] += 1
    return matrix


def pairs(seed=0, classes=4):
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(3):
        label = generator.integers(0, classes, (9, 7))
        wrong = generator.integers(0, classes, (9, 7))
        prediction = np.where(generator.random((9, 7)) < 0.6, label, wrong)
        label[0] = 255
        made.append((prediction, label))
    return made


def test_equals_the_confusion_matrix():
    data = pairs()
    matrix = confusion(data)
    n, right = matrix.sum(), np.diag(matrix)
    labelled, predicted = matrix.sum(1), matrix.sum(0)
    precision, recall = right / predicted, right / labelled
    chance = (labelled / n * predicted / n).sum()
    expected = {
        'OA': right.sum() / n,
        'AA': recall.mean(),
        'Kappa': (right.sum() / n - chance) / (1 - chance),
        'mF1': (2 * precision * recall / (precision + recall)).mean(),
        'mIoU': (right / (labelled + predicted - right)).mean(),
    }
    got = evaluate(data)
    assert got == {
        k: pytest.approx(100 * v, abs=0.01) for k, v in expected.items()
    }


def test_means_over_some_classes():
    data = pairs()
    matrix = confusion(data)
    f1 = 2 * np.diag(matrix) / (matrix.sum(0) + matrix.sum(1))
    got = evaluate(data, averaged_classes=['a', 'c'])
    everything = evaluate(data)
    assert got['mF1'] == pytest.approx(50 * (f1[0] + f1[2]), abs=0.01)
    assert got['OA'] == everything['OA']
    assert got['Kappa'] == everything['Kappa']


def test_the_log_has_both_means(monkeypatch):
    """Of the chosen classes and of all, each with their number."""
    texts = []
    monkeypatch.setattr(
        'mmseg_attn.evaluation.land_cover.print_log',
        lambda text, logger: texts.append(text),
    )
    data = pairs()
    matrix = confusion(data)
    f1 = 200 * np.diag(matrix) / (matrix.sum(0) + matrix.sum(1))
    evaluate(data, averaged_classes=['a', 'c', 'd'])
    evaluate(data)
    three, four = f1[[0, 2, 3]].mean(), f1.mean()
    chosen, everything = texts
    assert re.search(rf'mean of 3 .*\| {three:.2f} ', chosen)
    assert re.search(rf'mean of 4 .*\| {four:.2f} ', chosen)
    assert everything.count('mean of') == 1


def test_absent_classes_do_not_count():
    data = pairs(classes=2)
    assert evaluate(data) == evaluate(data, averaged_classes=['a', 'b'])


def test_agreement_by_chance_is_no_kappa():
    """A constant prediction is right now and then, and agrees with nothing."""
    (_, label), *_ = pairs()
    got = evaluate([(np.zeros_like(label), label)])
    assert got['OA'] > 0 and got['Kappa'] == 0
    same = np.zeros((3, 3), int)
    assert evaluate([(same, same)])['Kappa'] == 100


def test_everything_ignored_is_nan():
    ignored = np.full((3, 3), 255)
    got = evaluate([(np.zeros((3, 3), int), ignored)])
    assert all(np.isnan(value) for value in got.values()), got


def test_sums_are_exact_beyond_single_precision():
    """As many pixels as the tiles of Potsdam have."""
    metric = LandCoverMetric()
    metric.dataset_meta = dict(classes=('a', 'b'))
    many, one = torch.tensor([2.0**24, 0]), torch.tensor([1.0, 0])
    # Right, union, predicted, labelled; then 2^16 pictures of one pixel.
    results = [(many, many, many, many)]
    results += [(0 * one, one, torch.tensor([0, 1.0]), one)] * 2**16
    got = metric.compute_metrics(results)
    assert got['OA'] == pytest.approx(100 / (1 + 2**-8), abs=0.01)


def test_unknown_class_is_named():
    with pytest.raises(ValueError, match="'lake', expected some of a, b"):
        evaluate(pairs(), averaged_classes=['lake'])


def test_absent_classes_as_a_number():
    """As the host's metric takes it, and it says the same mIoU."""
    data = pairs(classes=2)
    two = evaluate(data)
    got = evaluate(data, nan_to_num=0)
    for name in ('AA', 'mF1', 'mIoU'):
        assert got[name] == pytest.approx(two[name] / 2, abs=0.01)
    assert (got['OA'], got['Kappa']) == (two['OA'], two['Kappa'])
    assert got['mIoU'] == evaluate(data, IoUMetric, nan_to_num=0)['mIoU']
    ignored = np.full((3, 3), 255)
    got = evaluate([(np.zeros((3, 3), int), ignored)], nan_to_num=-1)
    assert set(got.values()) == {-100}


@pytest.mark.parametrize('given', [dict(iou_metrics=['mDice']), dict(beta=2)])
def test_choice_of_figures_is_refused(given):
    (name,) = given
    with pytest.raises(ValueError, match=f'{name}=.*_delete_=True'):
        LandCoverMetric(**given)
