# Copyright (c) mmseg_attn contributors.
import math

import torch
from mmengine.logging import MMLogger
from mmseg.registry import METRICS

NAMES = ('a', 'b', 'c', 'd', 'e')


def test_against_a_count_by_hand(capsys):
    metric = METRICS.build(dict(type='mmseg_attn.ClassIoUMetric'))
    metric.dataset_meta = dict(classes=NAMES)
    # 255 is not counted.
    sample = dict(
        pred_sem_seg=dict(data=torch.tensor([[0, 0, 1, 1, 1, 4, 0]])),
        gt_sem_seg=dict(data=torch.tensor([[0, 0, 0, 1, 2, 1, 255]])),
    )
    metric.process({}, [sample])
    MMLogger.get_instance('class iou', logger_name='class iou')
    found = metric.evaluate(1)
    assert found['IoU a'] == round(100 * 2 / 3, 2)
    assert found['IoU b'] == 100 * 1 / 4
    assert found['IoU c'] == found['IoU e'] == 0
    assert math.isnan(found['IoU d'])
    assert found['mIoU'] == round((200 / 3 + 25) / 4, 2)
    # What is in no mask cannot be found; e was predicted only.
    assert 'never or hardly found: c.' in capsys.readouterr().out


def test_a_pixel_in_a_thousand_is_hardly_found(capsys):
    """An IoU of 0.1 % is as useless as none, and told as well."""
    metric = METRICS.build(dict(type='mmseg_attn.ClassIoUMetric'))
    metric.dataset_meta = dict(classes=('a', 'b', 'c'))
    truth = torch.tensor([[0] * 500 + [1] * 1000 + [2] * 100])
    found = torch.zeros_like(truth)
    found[0, 1499] = 1
    found[0, 1500:1502] = 2  # 2 %
    sample = dict(pred_sem_seg=dict(data=found), gt_sem_seg=dict(data=truth))
    metric.process({}, [sample])
    MMLogger.get_instance('hardly', logger_name='hardly')
    assert metric.evaluate(1)['IoU b'] == 0.1
    assert 'hardly found: b. A longer' in capsys.readouterr().out
