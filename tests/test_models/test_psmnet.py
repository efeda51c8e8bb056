# Copyright (c) mmseg_attn contributors.
"""PSMNet: counts and shapes of the paper's code, and its formulas."""

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.nn import functional as F

from mmseg_attn.apis.checkpoint import load_weights
from mmseg_attn.errors import UserError
from mmseg_attn.models import (
    ConcatCostVolume,
    DisparityLoss,
    DisparityRegression,
    PSMNet,
    PSMNetFeatures,
)

PREPROCESSOR = dict(
    type='mmseg_attn.ClipDataPreProcessor',
    mean=[0.0] * 3,
    std=[1.0] * 3,
    size_divisor=16,
)
EA = dict(type='mmseg_attn.EfficientAttention', zero_init=True)
# A quarter of 64 pixels is 16.
POOLS = dict(pool_sizes=(16, 8, 4, 2))


def build(**kwargs):
    kwargs = {'data_preprocessor': PREPROCESSOR, **kwargs}
    return PSMNet(**kwargs)


def small(**kwargs):
    torch.manual_seed(0)
    return build(max_disparity=32, features=POOLS, **kwargs)


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope='module')
def full():
    return build()


def test_counts(full):
    assert count(full) == 5_224_768
    assert len(full.state_dict()) == 514
    assert count(full.feature_extraction) == 3_339_552
    parts = full.aggregation
    assert count(parts.dres0) == 83_072
    assert count(parts.dres1) == 55_424
    for number in (2, 3, 4):
        assert count(getattr(parts, f'dres{number}')) == 553_664
    for number in (1, 2, 3):
        assert count(getattr(parts, f'classif{number}')) == 28_576
    basic = build(aggregation=dict(type='mmseg_attn.BasicAggregation'))
    assert count(basic) == 3_672_896


def test_shapes():
    with torch.device('meta'):
        features = PSMNetFeatures()
        seen = {}
        for name in ('firstconv', 'layer1', 'layer2', 'layer3', 'layer4'):
            getattr(features, name).register_forward_hook(
                lambda m, i, o, name=name: seen.update({name: o.shape[1:]})
            )
        out = features(torch.empty(2, 3, 256, 512))
    assert out.shape == (2, 32, 64, 128)
    assert seen['firstconv'] == seen['layer1'] == (32, 128, 256)
    assert seen['layer2'] == (64, 64, 128)
    assert seen['layer3'] == seen['layer4'] == (128, 64, 128)


def test_start(full):
    """Normal, variance 2 / (kernel * output channels)."""
    model = small()
    model.init_weights()
    for conv in (
        model.feature_extraction.layer3[0].conv1[0][0],
        model.aggregation.dres2.conv1[0][0],
    ):
        kernel = conv.weight[0, 0].numel()
        expected = (2 / (kernel * conv.out_channels)) ** 0.5
        assert conv.weight.std().item() == pytest.approx(expected, rel=0.03)


def official(model):
    """A state dict as the official code saves it."""
    state = {}
    for key, value in model.state_dict().items():
        key = key.replace('aggregation.', '')
        state[f'module.{key}'] = torch.randn_like(value.float()).to(
            value.dtype
        )
    return dict(epoch=10, state_dict=state, train_loss=1.0)


def test_official_checkpoint_loads(full, tmp_path):
    saved = official(full)
    names = set(saved['state_dict'])
    for name in (
        'module.feature_extraction.firstconv.0.0.weight',
        'module.feature_extraction.layer2.0.downsample.0.weight',
        'module.feature_extraction.branch1.1.0.weight',
        'module.feature_extraction.lastconv.2.weight',
        'module.dres0.0.0.weight',
        'module.dres2.conv5.0.weight',
        'module.classif3.2.weight',
    ):
        assert name in names
    torch.save(saved, tmp_path / 'official.tar')
    other = build()
    load_weights(other, tmp_path / 'official.tar')
    for key, value in other.state_dict().items():
        theirs = saved['state_dict'][
            'module.' + key.replace('aggregation.', '')
        ]
        assert torch.equal(value, theirs)
    del saved['state_dict']['module.dres3.conv5.0.weight']
    torch.save(saved, tmp_path / 'less.tar')
    with pytest.raises(UserError, match=r'aggregation\.dres3\.conv5'):
        load_weights(other, tmp_path / 'less.tar')


@pytest.mark.parametrize('disparities', [3, 9])
def test_cost_volume(disparities):
    left, right = torch.randn(2, 2, 3, 4, 7, dtype=torch.float64)
    volume = ConcatCostVolume()(left, right, disparities)
    assert volume.shape == (2, 6, disparities, 4, 7)
    for d in range(disparities):
        for x in range(7):
            if x < d:
                assert not volume[:, :, d, :, x].any()
                continue
            assert torch.equal(volume[:, :3, d, :, x], left[..., x])
            assert torch.equal(volume[:, 3:, d, :, x], right[..., x - d])
    with pytest.raises(ValueError, match='expected the same shape'):
        ConcatCostVolume()(left, right[..., :-1], 3)


def test_regression():
    """The expectation, and exact where one disparity is sure."""
    scores = torch.randn(2, 1, 4, 3, 5)
    found = DisparityRegression()(scores, 8, (6, 10))
    large = F.interpolate(
        scores.double(), (8, 6, 10), mode='trilinear', align_corners=False
    )
    share = large[:, 0].exp() / large[:, 0].exp().sum(1, keepdim=True)
    expected = sum(d * share[:, d] for d in range(8))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    other = DisparityRegression(align_corners=True)(scores, 8, (6, 10))
    assert (other - found).abs().max() > 1e-3
    truth = torch.randint(0, 8, (1, 6, 10))
    sure = 1e4 * F.one_hot(truth, 8).permute(0, 3, 1, 2)[:, None].float()
    found = DisparityRegression()(sure, 8, (6, 10))
    assert torch.equal(found, truth.float())


def test_loss():
    predicted = [
        torch.rand(2, 4, 5, dtype=torch.float64, requires_grad=True)
        for _ in range(3)
    ]
    target = 3 * torch.rand(2, 4, 5)
    target[0, :2] = float('inf')
    target[1, 0] = 192
    loss = DisparityLoss()(predicted, target)
    counts = target < 192
    assert counts.sum() == 25
    expected = sum(
        weight * F.smooth_l1_loss(p.float()[counts], target[counts])
        for weight, p in zip((0.5, 0.7, 1), predicted, strict=True)
    )
    torch.testing.assert_close(loss, expected)
    only = DisparityLoss()(predicted[2:], target)
    torch.testing.assert_close(
        only, F.smooth_l1_loss(predicted[2].float()[counts], target[counts])
    )
    none = DisparityLoss()(predicted, torch.full_like(target, float('inf')))
    none.backward()
    assert none == 0
    assert all(not p.grad.any() for p in predicted)
    with pytest.raises(ValueError, match='4 maps for 3 weights'):
        DisparityLoss()([predicted[0]] * 4, target)


@pytest.mark.parametrize('place', ['features', 'aggregation'])
def test_attention_starts_as_the_identity(place):
    plain = small().eval()
    options = {place: dict(attention=EA)}
    if place == 'features':
        options['features'].update(POOLS)
        attended = build(max_disparity=32, **options)
    else:
        attended = small(**options)
    attended.eval().load_state_dict(plain.state_dict(), strict=False)
    pair = torch.randn(1, 3, 2, 64, 80)
    with torch.no_grad():
        expected, found = plain(pair), attended(pair)
        assert torch.equal(expected[0], found[0])
        for module in attended.modules():
            if hasattr(module, 'reprojection'):
                module.reprojection.weight.normal_()
        assert (attended(pair)[0] - expected[0]).abs().max() > 1e-3


def test_wiring():
    """The third hourglass takes the way down of the first."""
    parts = small().aggregation.eval()
    calls = []
    for number in (2, 3, 4):
        getattr(parts, f'dres{number}').register_forward_hook(
            lambda m, args, out: calls.append((args, out))
        )
    with torch.no_grad():
        scores = parts(torch.randn(1, 64, 8, 8, 12))
    (first, one), (second, two), (third, three) = calls
    assert first[1] is None and first[2] is None
    assert second[1] is one[1] and second[2] is one[2]
    assert third[1] is one[1] and third[2] is two[2]
    start = first[0]
    assert torch.equal(second[0], one[0] + start)
    assert torch.equal(third[0], two[0] + start)
    with torch.no_grad():
        last = parts.classif3(three[0] + start) + scores[1]
    assert torch.equal(scores[2], last)


def test_any_size_is_predicted():
    """Filled up at the top and the right, and cut back."""
    model = small().eval()
    pair = torch.randn(1, 3, 2, 70, 83)
    padded = F.pad(pair, (0, 13, 10, 0))
    with torch.no_grad():
        (sample,) = model.predict(pair)
        expected = model(padded)[-1][:, 10:, :83]
    assert torch.equal(sample.pred_disparity.data, expected)
    with pytest.raises(ValueError, match=r'83 x 70 pixels: expected multip'):
        model(pair)
    with pytest.raises(ValueError, match=r'smaller than the widest pooling'):
        model(torch.randn(1, 3, 2, 32, 64))


def test_a_step_through_the_preprocessor():
    model = MODELS.build(
        dict(
            type='mmseg_attn.PSMNet',
            max_disparity=16,
            features=POOLS,
            data_preprocessor=dict(
                PREPROCESSOR, mean=[1.0, 2.0, 3.0], bgr_to_rgb=True
            ),
        )
    )
    pair = torch.randint(0, 255, (3, 2, 64, 64), dtype=torch.uint8)
    sample = SegDataSample()
    sample.gt_disparity = PixelData(data=torch.full((1, 64, 64), 4.0))
    data = dict(inputs=[pair], data_samples=[sample])
    ready = model.data_preprocessor(data, training=True)
    means = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1)
    assert torch.equal(ready['inputs'][0], pair.flip(0).float() - means)
    losses = model(**ready, mode='loss')
    losses['loss_disparity'].backward()
    assert all(p.grad is not None for p in model.parameters())
    sample.gt_disparity = PixelData(data=torch.full((1, 60, 64), 4.0))
    with pytest.raises(UserError, match='64 x 60 pixels, the pictures'):
        model.loss(ready['inputs'], [sample])
    with pytest.raises(ValueError, match="got 'train'"):
        model(ready['inputs'], mode='train')


def test_bad_options():
    with pytest.raises(ValueError, match='multiple of 16, got 100'):
        build(max_disparity=100)
    with pytest.raises(ValueError, match='four numbers'):
        PSMNetFeatures(pool_sizes=(64, 32))
