# Copyright (c) mmseg_attn contributors.
"""The authors' checkpoints: a network in their structure, then converted."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from in_process import run_script
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn

from mmseg_attn.engine.checkpoint import load_weights

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'model_converters' / 'ccnet.py'
BASE = 4  # channels of the first stage; the structure is that of ResNet-50


class ABN(nn.BatchNorm2d):
    """In-Place ABN in evaluation: |weight| + eps, then the activation."""

    def __init__(self, channels, slope=1.0):
        super().__init__(channels)
        self.slope = slope

    def forward(self, x):
        scale = self.weight.abs() + 1e-5
        x = F.batch_norm(
            x, self.running_mean, self.running_var, scale, self.bias
        )
        return F.leaky_relu(x, self.slope)


def conv(inputs, outputs, size=3, stride=1, dilation=1, bias=False):
    padding = dilation * (size // 2)
    return nn.Conv2d(
        inputs, outputs, size, stride, padding, dilation, bias=bias
    )


class Block(nn.Module):
    def __init__(self, inputs, width, stride, dilation):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, width, 1), ABN(width)
        self.conv2 = conv(width, width, 3, stride, dilation)
        self.bn2 = ABN(width)
        self.conv3, self.bn3 = conv(width, 4 * width, 1), ABN(4 * width)
        self.downsample = None
        if stride > 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(
                conv(inputs, 4 * width, 1, stride), ABN(4 * width)
            )

    def forward(self, x):
        out = self.bn1(self.conv1(x)).relu()
        out = self.bn2(self.conv2(out)).relu()
        out = self.bn3(self.conv3(out))
        return (out + (self.downsample or nn.Identity())(x)).relu()


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
        inputs = 16
        stages = ((3, 1, 1), (4, 2, 1), (6, 1, 2), (3, 1, 4))
        for i, (blocks, stride, dilation) in enumerate(stages):
            width = BASE * 2**i
            layer = nn.Sequential()
            for block in range(blocks):
                layer.append(
                    Block(inputs, width, 1 if block else stride, dilation)
                )
                inputs = 4 * width
            setattr(self, f'layer{i + 1}', layer)
        self.head = Head(inputs, 16, classes)
        self.dsn = nn.Sequential(
            conv(inputs // 2, 8, bias=True),
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


def theirs():
    torch.manual_seed(0)
    model = Theirs().eval()
    for name, value in model.state_dict().items():
        if name.endswith('running_var'):
            value.uniform_(0.5, 1.5)
        elif name.endswith('running_mean'):
            value.normal_(0, 0.1)
        elif value.ndim == 1:  # norms' weights of both signs, biases
            value.normal_(0, 1)
    nn.init.constant_(model.head.cca.gamma, 0.8)
    return model


def ours():
    init_default_scope('mmseg')
    name = 'ccnet_r50-d8_4xb2-paper-60k_cityscapes-769x769.py'
    cfg = Config.fromfile(ROOT / 'configs' / 'ccnet' / name).model
    cfg.pretrained = None
    cfg.backbone.update(base_channels=BASE, stem_channels=16)
    cfg.decode_head.update(in_channels=32 * BASE, channels=16)
    cfg.auxiliary_head.update(in_channels=16 * BASE, channels=8)
    model = revert_sync_batchnorm(MODELS.build(cfg))
    model.eval()
    return model


def run(*args):
    return run_script(TOOL, *args)


@pytest.mark.parametrize('wrap', [False, True], ids=['plain', 'module'])
def test_same_output_as_the_authors_network(tmp_path, wrap):
    source = theirs()
    weights = source.state_dict()
    if wrap:
        weights = {'model': {f'module.{k}': v for k, v in weights.items()}}
    torch.save(weights, tmp_path / 'theirs.pth')
    done = run(tmp_path / 'theirs.pth', tmp_path / 'ours.pth')
    assert done.returncode == 0, done.stderr

    model = ours()
    load_weights(model, tmp_path / 'ours.pth')
    image = torch.randn(1, 3, 64, 97)  # even and odd: the pooling shows
    with torch.no_grad():
        expected = source(image)
        features = model.extract_feat(image)
        answers = model.decode_head(features), model.auxiliary_head(features)
    for answer, truth in zip(answers, expected, strict=True):
        assert answer.shape == truth.shape
        assert truth.std() > 0.01
        assert (answer - truth).abs().max() < 1e-4 * truth.abs().max()


def test_nothing_is_overwritten_and_bad_input_is_named(tmp_path):
    torch.save({'other.weight': torch.ones(1)}, tmp_path / 'other.pth')
    done = run(tmp_path / 'other.pth', tmp_path / 'out.pth')
    assert done.returncode == 1
    assert '"other.weight"' in done.stderr
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'out.pth').exists()

    # ImageNet weights of the backbone have no attention.
    weights = theirs().state_dict()
    weights = {k: v for k, v in weights.items() if 'cca' not in k}
    torch.save(weights, tmp_path / 'backbone.pth')
    done = run(tmp_path / 'backbone.pth', tmp_path / 'out.pth')
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert 'head.cca' in done.stderr

    done = run(tmp_path / 'other.pth', tmp_path / 'other.pth')
    assert done.returncode == 1
    assert 'exists' in done.stderr
    assert 'other.weight' in torch.load(tmp_path / 'other.pth')
