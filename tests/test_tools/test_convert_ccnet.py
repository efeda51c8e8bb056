# Copyright (c) mmseg_attn contributors.
"""The authors' checkpoints: a network in their structure, then converted."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from converting import (
    ABN,
    assert_same,
    build,
    converter,
    dilated_stages,
    randomize,
    run,
)
from torch import nn

BASE = 4  # channels of the first stage; the structure is that of ResNet-50


def conv(inputs, outputs, size=3, stride=1, bias=False):
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=bias)


class CrissCross(nn.Module):
    """Row and column by a dense mask; the pixel itself once."""

    def __init__(self, channels):
        super().__init__()
        self.query_conv = conv(channels, channels // 8, 1, bias=True)
        self.key_conv = conv(channels, channels // 8, 1, bias=True)
        self.value_conv = conv(channels, channels, 1, bias=True)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        q, k, v = (
            layer(x).flatten(2)
            for layer in (self.query_conv, self.key_conv, self.value_conv)
        )
        place = torch.cartesian_prod(*map(torch.arange, x.shape[2:]))
        cross = (place[:, None] == place[None]).any(-1)
        scores = (q.mT @ k).masked_fill(~cross, -torch.inf)
        out = v @ scores.softmax(-1).mT
        return self.gamma * out.reshape(x.shape) + x


class Head(nn.Module):
    def __init__(self, inputs, width, classes):
        super().__init__()
        self.conva = nn.Sequential(conv(inputs, width), ABN(width, 0.01))
        self.cca = CrissCross(width)
        self.convb = nn.Sequential(conv(width, width), ABN(width, 0.01))
        self.bottleneck = nn.Sequential(
            conv(inputs + width, width),
            ABN(width, 0.01),
            nn.Dropout2d(0.1),
            conv(width, classes, 1, bias=True),
        )

    def forward(self, x):
        out = self.conva(x)
        for _ in range(2):
            out = self.cca(out)
        return self.bottleneck(torch.cat([x, self.convb(out)], 1))


class Theirs(nn.Module):
    def __init__(self, classes=19):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 8, 3, 2), ABN(8)
        self.conv2, self.bn2 = conv(8, 8), ABN(8)
        self.conv3, self.bn3 = conv(8, 16), ABN(16)
        stages = dilated_stages(16, BASE, contracted=False)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.head = Head(32 * BASE, 16, classes)
        self.dsn = nn.Sequential(
            conv(16 * BASE, 8, bias=True),
            ABN(8, 0.01),
            nn.Dropout2d(0.1),
            conv(8, classes, 1, bias=True),
        )

    def forward(self, x):
        for i in (1, 2, 3):
            norm = getattr(self, f'bn{i}')
            x = norm(getattr(self, f'conv{i}')(x)).relu()
        x = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        third = self.layer3(self.layer2(self.layer1(x)))
        return self.head(self.layer4(third)), self.dsn(third)


def theirs(classes=19):
    torch.manual_seed(0)
    model = randomize(Theirs(classes))
    nn.init.constant_(model.head.cca.gamma, 0.8)
    return model


def narrow(cfg):
    cfg.backbone.update(base_channels=BASE, stem_channels=16)
    cfg.decode_head.update(in_channels=32 * BASE, channels=16)
    cfg.auxiliary_head.update(in_channels=16 * BASE, channels=8)


def check(source, weights):
    name = 'ccnet_r50-d8_4xb2-paper-60k_cityscapes-769x769.py'
    model = build(f'ccnet/{name}', narrow)
    model.load_state_dict(weights, strict=True)
    # Even and odd: the pooling shows.
    images = torch.randn(2, 3, 64, 97, dtype=torch.float64)
    with torch.no_grad():
        features = model.extract_feat(images)
        answers = model.decode_head(features), model.auxiliary_head(features)
        expected = source(images)
        for answer, truth in zip(answers, expected, strict=True):
            assert_same(answer, truth)


@pytest.mark.parametrize('wrap', [False, True], ids=['plain', 'module'])
def test_same_output_as_the_authors_network(tmp_path, wrap):
    source = theirs()
    weights = source.state_dict()
    if wrap:
        weights = {'model': {f'module.{k}': v for k, v in weights.items()}}
    torch.save(weights, tmp_path / 'theirs.pth')
    done = run('ccnet', tmp_path / 'theirs.pth', tmp_path / 'ours.pth')
    assert done.returncode == 0, done.stderr
    ours = torch.load(tmp_path / 'ours.pth', weights_only=True)['state_dict']
    check(source, ours)


def test_ordinary_norms_are_told_by_their_counters():
    """Without |weight|, which In-Place ABN has."""
    source = theirs()
    for module in source.modules():
        if isinstance(module, ABN):
            module.num_batches_tracked = torch.tensor(3)
            module.forward = partial(ordinary, module)
    weights, report = converter('ccnet')(source.state_dict())
    assert any('ordinary' in note for note in report.notes)
    check(source, weights)


def ordinary(norm, x):
    y = nn.BatchNorm2d.forward(norm, x)
    return F.leaky_relu(y, norm.slope)


def test_nothing_is_overwritten_and_bad_input_is_named(tmp_path):
    torch.save({'other.weight': torch.ones(1)}, tmp_path / 'other.pth')
    done = run('ccnet', tmp_path / 'other.pth', tmp_path / 'out.pth')
    assert done.returncode == 1
    assert '"other.weight"' in done.stderr
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'out.pth').exists()

    # ImageNet weights of the backbone have no attention.
    weights = theirs().state_dict()
    weights = {k: v for k, v in weights.items() if 'cca' not in k}
    torch.save(weights, tmp_path / 'backbone.pth')
    done = run('ccnet', tmp_path / 'backbone.pth', tmp_path / 'out.pth')
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert 'head.cca' in done.stderr

    done = run('ccnet', tmp_path / 'other.pth', tmp_path / 'other.pth')
    assert done.returncode == 1
    assert 'exists' in done.stderr
    assert 'other.weight' in torch.load(tmp_path / 'other.pth')
