# Copyright (c) mmseg_attn contributors.
"""Checkpoints of MAResU-Net and MANet: their forward, re-stated."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from converting import Block, assert_same, build, converter, randomize
from torch import nn

from mmseg_attn.errors import UserError

NETWORKS = {
    'MAResU-Net': ('maresunet/maresunet_r34_4xb4-80k_vaihingen-512x512', 1),
    'MANet': ('manet/manet_r50_4xb4-80k_vaihingen-512x512', 4),
}
WIDTH = 16  # of the first stage's blocks


class Positions(nn.Module):
    """Linear attention, dense; 1 + cosine, or products of softplus."""

    def __init__(self, channels, kernel):
        super().__init__()
        self.kernel = kernel
        self.gamma = nn.Parameter(torch.tensor([0.7]))
        self.query_conv = nn.Conv2d(channels, channels // 8, 1)
        self.key_conv = nn.Conv2d(channels, channels // 8, 1)
        self.value_conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        query, key = self.query_conv(x).flatten(2), self.key_conv(x).flatten(2)
        if self.kernel:
            query, key = F.softplus(query), F.softplus(key)
            pairs = query.mT @ key
        else:
            query, key = F.normalize(query, dim=1), F.normalize(key, dim=1)
            pairs = 1 + query.mT @ key
        total = pairs.sum(2) + 1e-6 * query.sum(1)
        out = self.value_conv(x).flatten(2) @ (pairs / total[..., None]).mT
        return x + self.gamma * out.view_as(x)


class Channels(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.tensor([-0.4]))

    def forward(self, x):
        flat = x.flatten(2)
        energy = flat @ flat.mT
        weights = (energy.amax(2, keepdim=True) - energy).softmax(2)
        return x + self.gamma * (weights @ flat).view_as(x)


class Attention(nn.Module):
    def __init__(self, channels, kernel):
        super().__init__()
        self.kernel = kernel
        self.PAM, self.CAM = Positions(channels, kernel), Channels()
        if kernel:
            return

        def unit(size):
            conv = nn.Conv2d(channels, channels, size, padding=size // 2)
            return nn.Sequential(conv, nn.ReLU())

        self.conv1 = unit(3)
        for name in ('conv2P', 'conv2C', 'conv3'):
            setattr(self, name, nn.Sequential(nn.Dropout2d(0.1), unit(1)))

    def forward(self, x):
        if self.kernel:
            return self.PAM(x) + self.CAM(x)
        x = self.conv1(x)
        return self.conv3(self.conv2P(self.PAM(x)) + self.conv2C(self.CAM(x)))


class Decoder(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        width = inputs // 4
        self.conv1, self.norm1 = (
            nn.Conv2d(inputs, width, 1),
            nn.BatchNorm2d(width),
        )
        self.deconv2 = nn.ConvTranspose2d(width, width, 3, 2, 1, 1)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3, self.norm3 = (
            nn.Conv2d(width, outputs, 1),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x):
        x = self.norm1(self.conv1(x)).relu()
        x = self.norm2(self.deconv2(x)).relu()
        return self.norm3(self.conv3(x)).relu()


class Official(nn.Module):
    def __init__(self, network):
        super().__init__()
        expansion = NETWORKS[network][1]
        self.firstconv = nn.Conv2d(3, WIDTH, 7, 2, 3, bias=False)
        self.firstbn = nn.BatchNorm2d(WIDTH)
        widths = [expansion * WIDTH * 2**i for i in range(4)]
        before = [WIDTH, *widths]
        for i, width in enumerate(widths):
            block = Block(
                before[i],
                width // expansion,
                expansion,
                2 if i else 1,
                norm=nn.BatchNorm2d,
            )
            setattr(self, f'encoder{i + 1}', nn.Sequential(block))
            attention = Attention(width, kernel=network == 'MANet')
            setattr(self, f'attention{i + 1}', attention)
            decoder = Decoder(width, widths[max(i - 1, 0)])
            setattr(self, f'decoder{i + 1}', decoder)
        self.finaldeconv1 = nn.ConvTranspose2d(widths[0], 32, 4, 2, 1)
        self.finalconv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.finalconv3 = nn.Conv2d(32, 6, 3, padding=1)

    def forward(self, x):
        x = self.firstbn(self.firstconv(x)).relu()
        x = F.max_pool2d(x, 3, 2, 1)
        e1 = self.encoder1(x)
        e2 = self.encoder2(e1)
        e3 = self.encoder3(e2)
        d4 = self.decoder4(self.attention4(self.encoder4(e3)))
        d3 = self.decoder3(d4 + self.attention3(e3))
        d2 = self.decoder2(d3 + self.attention2(e2))
        d1 = self.decoder1(d2 + self.attention1(e1))
        out = self.finalconv2(self.finaldeconv1(d1).relu()).relu()
        return self.finalconv3(out)


def official(network):
    torch.manual_seed(0)
    theirs = randomize(Official(network))
    for name, parameter in theirs.named_parameters():
        if 'query_conv.weight' in name or 'key_conv.weight' in name:
            parameter.data.mul_(10)  # so that some positions weigh more
    return theirs


@pytest.mark.parametrize('network', NETWORKS)
def test_gives_the_official_output(network):
    """The config as it is but for widths and blocks."""
    theirs = official(network)
    weights, report = converter('maresunet')(theirs.state_dict())
    assert not report.left_out and report.compared < 1e-10
    assert f'{network}: decode_head needs num_classes=6' in str(report)
    config, expansion = NETWORKS[network]

    def narrow(cfg):
        cfg.backbone.update(
            depth=50 if expansion > 1 else 18,
            base_channels=WIDTH,
            stem_channels=WIDTH,
        )
        cfg.decode_head.in_channels = [
            expansion * WIDTH * 2**i for i in range(4)
        ]

    model = build(f'{config}.py', narrow)
    for i in range(4):  # the host has no ResNet of one block a stage
        stage = getattr(model.backbone, f'layer{i + 1}')
        del stage[1:]
    model.load_state_dict(weights, strict=True)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        assert_same(model(x), theirs(x))


@pytest.mark.parametrize('network', NETWORKS)
def test_another_map_is_seen_with_gains_of_0(network):
    """As they start: both sides returned what they got."""
    theirs = official(network)
    for name, parameter in theirs.named_parameters():
        if name.endswith('gamma'):
            nn.init.zeros_(parameter)
    convert = converter('maresunet')
    convert(theirs.state_dict())
    other = {'MANet': 'taylor', 'MAResU-Net': 'softplus'}[network]
    head = convert.__globals__['HEADS'][network]
    layer = dict(type='mmseg_attn.LinearAttention', feature_map=other)
    convert.__globals__['HEADS'][network] = partial(head, attention=layer)
    with pytest.raises(UserError, match="do not give the authors' output"):
        convert(theirs.state_dict())


@pytest.mark.parametrize(
    'part, said',
    [
        ('decoder2.norm3', 'missing: decoder2.norm3'),
        ('attention3.PAM.query_conv', '(?s)not those of MANet: .*query_conv'),
        ('attention1.CAM.gamma', 'missing: attention1.CAM'),
    ],
)
def test_missing_parts_are_named(part, said):
    weights = official('MANet').state_dict()
    for name in [k for k in weights if k.startswith(part)]:
        del weights[name]
    with pytest.raises(UserError, match=said):
        converter('maresunet')(weights)


def test_other_names_are_named():
    weights = official('MANet').state_dict()
    weights['attention1.conv1.0.weight'] = torch.zeros(1)
    with pytest.raises(UserError, match='"attention1.conv1.0.weight" is no'):
        converter('maresunet')(weights)
