# Copyright (c) mmseg_attn contributors.
"""PSMNet: counts and shapes of the paper's code, and its formulas."""

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.nn import functional as F

from mmseg_attn.engine.checkpoint import load_weights
from mmseg_attn.errors import UserError
from mmseg_attn.models import (
    BasicAggregation,
    ConcatCostVolume,
    DisparityLoss,
    DisparityRegression,
    PSMNet,
    PSMNetFeatures,
    StackedHourglass,
)
from mmseg_attn.models.stereo.aggregation import Hourglass

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


@pytest.mark.parametrize('depth, name', [(8, 'conv4'), (4, 'conv2')])
def test_gradients_over_two_planes_under_autocast(depth, name):
    """Those of the library are NaN or of any size, as memory was before."""
    torch.manual_seed(0)
    net = Hourglass(32)
    volume, grad = torch.randn(2, 1, 32, depth, 16, 24)
    weight = [p for n, p in net.named_parameters() if n.startswith(name)][0]

    def gradient(narrow):
        with torch.autocast('cpu', torch.bfloat16, enabled=narrow):
            out = net(volume, None, None)[0]
        return torch.autograd.grad(out.float(), weight, grad)[0]

    expected = gradient(False)
    for _ in range(5):
        junk = [torch.full((1000 * n,), torch.nan) for n in range(1, 40)]
        del junk
        wrong = (gradient(True) - expected).norm() / expected.norm()
        assert wrong < 0.1


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
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(DisparityRegression()(scores, 8, (6, 10)), found)
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


class Formulas:
    """The official network, written down anew, on a state dict."""

    def __init__(self, module, align_corners=False):
        self.weights = module.state_dict()
        self.align_corners = align_corners

    def norm(self, x, name):
        mean, var, weight, bias = (
            self.weights[f'{name}.{key}'].view(-1, *[1] * (x.ndim - 2))
            for key in ('running_mean', 'running_var', 'weight', 'bias')
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def conv(self, x, name, stride=1, dilation=1):
        weight = self.weights[f'{name}.0.weight']
        padding = dilation * (weight.size(-1) // 2)
        conv = F.conv2d if x.ndim == 4 else F.conv3d
        out = conv(x, weight, None, stride, padding, dilation)
        return self.norm(out, f'{name}.1')

    def larger(self, x, name):
        weight = self.weights[f'{name}.0.weight']
        out = F.conv_transpose3d(x, weight, None, 2, 1, 1)
        return self.norm(out, f'{name}.1')

    def features(self, x, pool_sizes):
        for number, stride in ((0, 2), (2, 1), (4, 1)):
            x = self.conv(x, f'firstconv.{number}', stride).relu()
        outs = []
        for layer, blocks, stride, dilation in (
            (1, 3, 1, 1),
            (2, 16, 2, 1),
            (3, 3, 1, 1),
            (4, 3, 1, 2),
        ):
            for block in range(blocks):
                name = f'layer{layer}.{block}'
                step = 1 if block else stride
                y = self.conv(x, f'{name}.conv1.0', step, dilation).relu()
                y = self.conv(y, f'{name}.conv2', 1, dilation)
                if layer in (2, 3) and not block:
                    x = self.conv(x, f'{name}.downsample', step)
                x = x + y
            outs.append(x)
        parts = [outs[1], x]
        for number in (4, 3, 2, 1):  # the widest window is number 1
            pooled = F.avg_pool2d(x, pool_sizes[number - 1])
            pooled = self.conv(pooled, f'branch{number}.1').relu()
            parts.append(
                F.interpolate(
                    pooled,
                    x.shape[2:],
                    mode='bilinear',
                    align_corners=self.align_corners,
                )
            )
        out = self.conv(torch.cat(parts, 1), 'lastconv.0').relu()
        return F.conv2d(out, self.weights['lastconv.2.weight'])

    def two(self, x, name):
        return self.conv(self.conv(x, f'{name}.0').relu(), f'{name}.2')

    def score(self, x, name):
        weight = self.weights[f'{name}.2.weight']
        x = self.conv(x, f'{name}.0').relu()
        return F.conv3d(x, weight, padding=1)

    def hourglass(self, x, name, down, up):
        y = self.conv(
            self.conv(x, f'{name}.conv1.0', 2).relu(), f'{name}.conv2'
        )
        before = (y if up is None else y + up).relu()
        y = self.conv(before, f'{name}.conv3.0', 2).relu()
        y = self.larger(
            self.conv(y, f'{name}.conv4.0').relu(), f'{name}.conv5'
        )
        after = (y + (before if down is None else down)).relu()
        return self.larger(after, f'{name}.conv6'), before, after

    def stacked(self, x):
        x = self.two(x, 'dres0').relu()
        x = x + self.two(x, 'dres1')
        one, down, up = self.hourglass(x, 'dres2', None, None)
        two, _, up = self.hourglass(one + x, 'dres3', down, up)
        three, _, _ = self.hourglass(two + x, 'dres4', down, up)
        scores = [self.score(one + x, 'classif1')]
        scores += [self.score(two + x, 'classif2') + scores[0]]
        return [*scores, self.score(three + x, 'classif3') + scores[1]]

    def basic(self, x):
        x = self.two(x, 'dres0').relu()
        for number in range(1, 5):
            x = x + self.two(x, f'dres{number}')
        return [self.score(x, 'classify')]


def any_weights(module):
    """In fp64, with norms that do something."""
    torch.manual_seed(0)
    module.init_weights()
    for child in module.double().eval().modules():
        if isinstance(child, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)):
            for value in (child.weight, child.running_var):
                torch.nn.init.uniform_(value, 0.5, 1.5)
            for value in (child.bias, child.running_mean):
                torch.nn.init.normal_(value, std=0.1)
    return module


@pytest.mark.parametrize('align_corners', [False, True])
def test_features_are_the_formulas(align_corners):
    module = any_weights(PSMNetFeatures(**POOLS, align_corners=align_corners))
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        found = module(x)
        expected = Formulas(module, align_corners).features(
            x, POOLS['pool_sizes']
        )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('kind', ['stacked', 'basic'])
def test_aggregation_is_the_formulas(kind):
    module = StackedHourglass() if kind == 'stacked' else BasicAggregation()
    any_weights(module)
    x = torch.randn(1, 64, 4, 8, 12, dtype=torch.float64)
    with torch.no_grad():
        found = module(x)
        expected = getattr(Formulas(module), kind)(x)
    torch.testing.assert_close(found, expected)


def test_disparities_are_the_formulas():
    """The whole network: left and right, all outputs, all disparities."""
    model = any_weights(small())
    pair = torch.randn(1, 3, 2, 64, 80, dtype=torch.float64)
    net = Formulas(model.feature_extraction)
    left, right = (
        net.features(pair[:, :, side], POOLS['pool_sizes']) for side in (0, 1)
    )
    columns = right.shape[-1]
    volume = left.new_zeros(1, 64, 32 // 4, *left.shape[2:])
    for shift in range(32 // 4):
        seen = slice(None, columns - shift)
        volume[:, :32, shift, :, shift:] = left[..., shift:]
        volume[:, 32:, shift, :, shift:] = right[..., seen]
    expected = []
    for score in Formulas(model.aggregation).stacked(volume):
        score = F.interpolate(
            score, (32, 64, 80), mode='trilinear', align_corners=False
        )
        share = score[:, 0].softmax(1)
        expected.append(
            torch.einsum('bdhw,d->bhw', share, torch.arange(32.0).double())
        )
    assert expected[-1].std() > 0.1
    close = dict(rtol=0, atol=1e-4)  # the regression is in fp32
    with torch.no_grad():
        (last,) = model(pair)
        # All outputs, but with the norms as they are in a test.
        model.training = True
        found = model(pair)
        target = torch.full((1, 64, 80), 7.0)
        sample = SegDataSample(gt_disparity=PixelData(data=target))
        loss = model.loss(pair, [sample])['loss_disparity']
    for one, other in zip(
        (*found, last), (*expected, expected[2]), strict=True
    ):
        torch.testing.assert_close(one.double(), other, **close)
    errors = [F.smooth_l1_loss(x.float(), target) for x in expected]
    torch.testing.assert_close(
        loss, 0.5 * errors[0] + 0.7 * errors[1] + errors[2]
    )


def test_each_side_has_norms_of_its_own():
    """In training, as in the official code; in one batch as an option."""
    pair = torch.randn(1, 3, 2, 64, 128)
    pair[:, :, 1] += 5  # what a shared norm would see
    model, together = small().train(), small(one_batch=True).train()
    together.load_state_dict(model.state_dict())
    features = PSMNetFeatures(**POOLS).train()
    features.load_state_dict(model.feature_extraction.state_dict())
    seen = []
    for network in (model, together):
        network.cost_volume.register_forward_pre_hook(
            lambda module, args: seen.append(args[:2])
        )
        network(pair)
    alone = [features(pair[:, :, side]) for side in (0, 1)]
    torch.testing.assert_close(list(seen[0]), alone)
    both = features(pair[0].transpose(0, 1))
    torch.testing.assert_close(torch.cat(seen[1]), both)
    assert (torch.cat(alone) - both).abs().max() > 0.1
    counted = [
        int(n.feature_extraction.firstconv[0][1].num_batches_tracked)
        for n in (model, together)
    ]
    assert counted == [2, 1]


def test_any_size_is_predicted():
    """Filled up at the top and the right, and cut back."""
    model = small().eval()
    pair = torch.randn(1, 3, 2, 70, 83)
    padded = F.pad(pair, (0, 13, 10, 0))
    with torch.no_grad():
        (sample,) = model.predict(pair)
        expected = model(padded)[-1][:, 10:, :83]
    assert torch.equal(sample.pred_disparity.data, expected)
    with pytest.raises(UserError, match=r'83 x 70 pixels: expected multip'):
        model(pair)
    with pytest.raises(UserError, match=r'smaller than the widest pooling'):
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
    pair = torch.randint(0, 255, (3, 2, 64, 128), dtype=torch.uint8)
    sample = SegDataSample()
    sample.gt_disparity = PixelData(data=torch.full((1, 64, 128), 4.0))
    data = dict(inputs=[pair], data_samples=[sample])
    ready = model.data_preprocessor(data, training=True)
    means = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1)
    assert torch.equal(ready['inputs'][0], pair.flip(0).float() - means)
    losses = model(**ready, mode='loss')
    losses['loss_disparity'].backward()
    assert all(p.grad is not None for p in model.parameters())
    with pytest.raises(UserError, match='one picture of 64 x 64 .* larger ba'):
        model(ready['inputs'][..., :64])
    sample.gt_disparity = PixelData(data=torch.full((1, 60, 128), 4.0))
    with pytest.raises(UserError, match='128 x 60 pixels, the pictures'):
        model.loss(ready['inputs'], [sample])
    with pytest.raises(ValueError, match="got 'train'"):
        model(ready['inputs'], mode='train')
    data = dict(inputs=[pair, pair[..., :60]], data_samples=[sample, sample])
    with pytest.raises(UserError, match='all of one size. Set batch_size=1'):
        model.data_preprocessor(data)


def test_bad_options():
    with pytest.raises(ValueError, match='multiple of 16, got 100'):
        build(max_disparity=100)
    with pytest.raises(ValueError, match='four numbers'):
        PSMNetFeatures(pool_sizes=(64, 32))
