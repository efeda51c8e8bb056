# Copyright (c) mmseg_attn contributors.
import math

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from mmseg_attn.models.losses import ClassPresenceLoss


def build(**kwargs):
    torch.manual_seed(0)
    cfg = dict(
        type='mmseg_attn.SqueezeAttentionHead',
        in_channels=[4, 8, 8, 16],
        channels=6,
        num_classes=3,
        norm_cfg=dict(type='BN'),
        dropout_ratio=0,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    )
    return MODELS.build({**cfg, **kwargs})


def stages():
    generator = torch.Generator().manual_seed(1)
    sizes = (14, 18), (7, 9), (7, 9), (7, 9)
    return [
        torch.randn(2, c, *size, generator=generator)
        for c, size in zip((4, 8, 8, 16), sizes, strict=True)
    ]


def sample(label):
    return [SegDataSample(gt_sem_seg=PixelData(data=x)) for x in label]


def test_outputs_and_their_sum():
    heads = {
        name: build(test_output=name).eval()
        for name in ('mask', 'dense', 'mask+dense')
    }
    x = stages()
    with torch.no_grad():
        mask, dense, both = (head(x) for head in heads.values())
    assert mask.shape == dense.shape == (2, 3, 7, 9)
    torch.testing.assert_close(both, mask + dense)
    # The dense one sees the last stage alone, the mask all of them.
    for i in range(3):
        x[i] = x[i] + 1
    with torch.no_grad():
        assert torch.equal(heads['dense'](x), dense)
        assert not torch.equal(heads['mask'](x), mask)


def test_the_grid_is_that_of_a_stage():
    """Of backbones without dilation the last stage's is coarse."""
    x = stages()
    sizes = {0: (14, 18), 1: (7, 9), -1: (7, 9), -4: (14, 18)}
    for grid, size in sizes.items():
        heads = {
            name: build(test_output=name, grid=grid).eval()
            for name in ('mask', 'dense', 'mask+dense')
        }
        with torch.no_grad():
            mask, dense, both = (head(x) for head in heads.values())
        assert mask.shape[2:] == both.shape[2:] == size
        dense = torch.nn.functional.interpolate(dense, size, mode='bilinear')
        torch.testing.assert_close(both, mask + dense)
    for wrong in (4, -5):
        with pytest.raises(ValueError, match=f'takes 4 .*got grid={wrong}'):
            build(grid=wrong)


def test_three_losses_with_the_papers_weights():
    head = build()
    x = stages()
    label = torch.randint(0, 3, (2, 1, 28, 36))
    label[0][label[0] == 2] = 0  # class 2 is absent from the first picture
    label[..., :4] = 255
    losses = head.loss(x, sample(label), {})
    with torch.no_grad():
        features, *last = head._attend(x)
        maps = head.conv_seg(features), head._dense(*last)
        logits = head.presence(features.mean((2, 3))).double()
    expected = []
    for values in maps:
        values = torch.nn.functional.interpolate(
            values, (28, 36), mode='bilinear'
        )
        chosen = values.log_softmax(1).gather(1, label.clamp_max(2))
        expected.append(-chosen[label != 255].mean())
    # Which classes are there, counted by hand.
    binary = 0.0
    for picture in range(2):
        for c in range(3):
            there = bool((label[picture] == c).any())
            p = 1 / (1 + math.exp(-logits[picture, c]))
            binary -= math.log(p if there else 1 - p)
    assert losses['loss_ce'].item() == pytest.approx(expected[0].item(), 1e-4)
    dense = 0.8 * expected[1].item()
    assert losses['loss_dense'].item() == pytest.approx(dense, 1e-4)
    presence = 0.2 * binary / 6
    assert losses['loss_presence'].item() == pytest.approx(presence, 1e-4)


def test_sum_over_classes_is_the_papers_formula():
    logits = torch.randn(2, 4)
    label = torch.tensor([[[0, 1], [255, 1]], [[3, 3], [3, 3]]])
    mean = ClassPresenceLoss()(logits, label)
    total = ClassPresenceLoss('sum')(logits, label)
    torch.testing.assert_close(total, 4 * mean)


def test_pictures_without_labels_do_not_count():
    logits = torch.randn(2, 4)
    label = torch.tensor([[[0, 1]], [[255, 255]]])
    both = ClassPresenceLoss()(logits, label)
    torch.testing.assert_close(
        both, ClassPresenceLoss()(logits[:1], label[:1])
    )
    assert ClassPresenceLoss()(logits, torch.full_like(label, 255)) == 0


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int32, torch.int64])
def test_any_integer_labels_in_double_precision(dtype):
    logits = torch.randn(1, 4, dtype=torch.float64)
    label = torch.tensor([[[0, 1], [255, 1]]])
    got = ClassPresenceLoss()(logits, label.to(dtype))
    target = torch.tensor([[1.0, 1, 0, 0]], dtype=torch.float64)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, target
    )
    torch.testing.assert_close(got, 0.2 * wanted, atol=1e-12, rtol=0)


def test_one_output_channel():
    """Two classes by a sigmoid, as the host's heads have them."""
    loss = dict(type='CrossEntropyLoss', use_sigmoid=True)
    head = build(
        num_classes=2, out_channels=1, threshold=0.3, loss_decode=loss
    )
    label = torch.randint(0, 2, (2, 1, 28, 36))
    losses = head.loss(stages(), sample(label), {})
    with torch.no_grad():
        _, *last = head._attend(stages())
        values = torch.nn.functional.interpolate(
            head._dense(*last), (28, 36), mode='bilinear'
        )
        wanted = torch.nn.functional.binary_cross_entropy_with_logits(
            values, label.float()
        )
    torch.testing.assert_close(losses['loss_dense'].detach(), 0.8 * wanted)


def test_labels_out_of_range_are_named():
    label = torch.tensor([[[0, 4]]])
    with pytest.raises(ValueError, match=r'from 0 to 3 or 255, got \[4\]'):
        ClassPresenceLoss()(torch.zeros(1, 4), label)


def test_bad_arguments_are_explained():
    with pytest.raises(ValueError, match='several stages'):
        build(in_channels=8, in_index=3)
    with pytest.raises(ValueError, match="'mask\\+dense', got 'all'"):
        build(test_output='all')
    with pytest.raises(ValueError, match="'mean', 'sum', got 'max'"):
        ClassPresenceLoss('max')
