# Copyright (c) mmseg_attn contributors.
"""Checkpoints of openseg's ISANet, with ResNet and with HRNet."""

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from converting import (
    ABN,
    Block,
    assert_same,
    build,
    converter,
    dilated_stages,
    randomize,
    run,
)
from mmseg.registry import MODELS
from torch import nn

from mmseg_attn.errors import UserError


class Norm(nn.Module):
    """The official nesting of a norm and its activation, or In-Place ABN."""

    def __new__(cls, channels, in_place):
        if not in_place:
            return nn.Sequential(
                nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
            )
        return nn.Sequential(ABN(channels, 0.01))


class Attention(nn.Module):
    """openseg's self-attention by its names, on small pictures."""

    def __init__(self, era, in_place):
        super().__init__()
        bias = era == 2019

        def guide():
            return nn.Sequential(
                nn.Conv2d(8, 4, 1, bias=bias),
                *Norm(4, in_place),
                nn.Conv2d(4, 4, 1, bias=bias),
                *Norm(4, in_place),
            )

        self.f_key, self.f_query = guide(), guide()
        self.f_value = nn.Conv2d(8, 6, 1, bias=bias)
        if bias:
            self.f_value = nn.Sequential(self.f_value)
        self.W = nn.Sequential(nn.Conv2d(6, 8, 1, bias=bias))
        if not bias:
            self.W.extend(Norm(8, in_place))

    def forward(self, x):
        query, key = self.f_query(x).flatten(2), self.f_key(x).flatten(2)
        weights = (query.mT @ key / 2).softmax(-1)  # the root of 4 channels
        out = self.f_value(x).flatten(2) @ weights.mT
        return self.W(out.unflatten(2, x.shape[2:]))


class Stage(nn.Module):
    def __init__(self, era, in_place, partition):
        super().__init__()
        self.partition = partition
        self.long_range_sa = Attention(era, in_place)
        self.short_range_sa = Attention(era, in_place)

    def forward(self, x):
        """On a map that the partition divides, group by group."""
        height, width = self.partition
        y = torch.empty_like(x)
        for i in range(height):
            for j in range(width):
                group = (..., slice(i, None, height), slice(j, None, width))
                y[group] = self.long_range_sa(x[group])
        z = torch.empty_like(x)
        for i in range(0, x.shape[2], height):
            for j in range(0, x.shape[3], width):
                window = (..., slice(i, i + height), slice(j, j + width))
                z[window] = self.short_range_sa(y[window])
        return z


class Official(nn.Module):
    """openseg's head and auxiliary head, with its names."""

    def __init__(self, era, in_place, partitions):
        super().__init__()
        old = era == 2019
        count = len(partitions)

        def conv(inputs, outputs, size=1, bias=old):
            """With its norm; until 2019 with a bias before it."""
            layer = nn.Conv2d(
                inputs, outputs, size, padding=size // 2, bias=bias
            )
            return nn.Sequential(layer, *Norm(outputs, in_place))

        self.isa_head = conv(12, 8, 3)
        module = nn.Module()
        module.stages = nn.ModuleList(
            Stage(era, in_place, partition) for partition in partitions
        )
        if count > 1:
            module.up_conv = conv(8, 8 * count)
        module.conv_bn = conv(16 * count, 8).append(nn.Dropout2d(0.05))
        self.isa_head.append(module)
        self.cls_head = nn.Conv2d(8, 5, 1)
        self.dsn_head = conv(10, 6, 3, bias=True)
        self.dsn_head.extend([nn.Dropout2d(), nn.Conv2d(6, 5, 1)])

    def forward(self, x, third):
        x = self.isa_head[1](self.isa_head[0](x))
        module = self.isa_head[2]
        context = [stage(x) for stage in module.stages]
        if len(context) > 1:
            x = module.up_conv(x)
        both = torch.cat([x, *context], 1)
        return self.cls_head(module.conv_bn(both)), self.dsn_head(third)


@pytest.mark.parametrize(
    'era, in_place, partitions',
    [
        (2019, False, [(2, 3)]),
        (2020, True, [(2, 3)]),
        (2019, True, [(2, 3), (3, 3)]),
        (2020, False, [(2, 3), (3, 3)]),
    ],
)
def test_isanet_gives_the_official_output(era, in_place, partitions):
    torch.manual_seed(0)
    official = randomize(Official(era, in_place, partitions))
    weights = official.state_dict()
    weights['backbone.resinit.bn2.bias'] = torch.zeros(3)
    weights['backbone.layer1.0.conv1.weight'] = torch.zeros(3)
    ours, report = converter('isanet')(weights)
    assert not report.left_out
    assert ('negative_slope=0.01' in str(report)) == in_place
    assert ('output_norm=False' in str(report)) == (era == 2019)
    assert ('2 partitions' in str(report)) == (len(partitions) == 2)
    assert 'backbone.stem.4.bias' in ours
    assert 'backbone.layer1.0.conv1.weight' in ours
    act_cfg = dict(type='LeakyReLU', negative_slope=0.01 if in_place else 0.0)
    heads = dict(norm_cfg=dict(type='BN'), num_classes=5, act_cfg=act_cfg)
    head = MODELS.build(
        dict(
            type='mmseg_attn.ISAHead',
            in_channels=12,
            channels=8,
            isa_channels=4,
            down_factor=partitions,
            attention=dict(value_channels=6, output_norm=era == 2020),
            **heads,
        )
    )
    aux = MODELS.build(
        dict(
            type='FCNHead',
            in_channels=10,
            channels=6,
            num_convs=1,
            concat_input=False,
            **heads,
        )
    )
    for module, prefix in ((head, 'decode_head.'), (aux, 'auxiliary_head.')):
        own = {
            k.removeprefix(prefix): v
            for k, v in ours.items()
            if k.startswith(prefix)
        }
        module.double().eval()
        module.load_state_dict(own, strict=True)
    x = torch.randn(2, 12, 6, 9, dtype=torch.float64)
    third = torch.randn(2, 10, 6, 9, dtype=torch.float64)
    with torch.no_grad():
        expected = official(x, third)
        for got, wanted in zip(
            (head([x]), aux([third])), expected, strict=True
        ):
            assert_same(got, wanted)


def test_a_file_becomes_a_checkpoint(tmp_path):
    weights = Official(2019, False, [(2, 3)]).state_dict()
    wrapped = {f'module.{name}': value for name, value in weights.items()}
    torch.save({'state_dict': wrapped}, tmp_path / 'theirs.pth')
    done = run('isanet', tmp_path / 'theirs.pth', tmp_path / 'ours.pth')
    assert done.returncode == 0, done.stderr
    assert f'{len(weights)} weights read' in done.stdout
    assert '0 left out' in done.stdout and 'compared' in done.stdout
    ours = torch.load(tmp_path / 'ours.pth', weights_only=True)['state_dict']
    assert 'decode_head.global_relation.output_project.conv.bias' in ours


def test_a_missing_weight_is_named():
    weights = Official(2019, False, [(2, 3)]).state_dict()
    del weights['isa_head.2.stages.0.short_range_sa.f_key.2.weight']
    with pytest.raises(UserError, match='key_project.1.conv.weight'):
        converter('isanet')(weights)


class ResNetISA(nn.Module):
    """openseg's network of 2020 on a picture in BGR of 0 to 255."""

    def __init__(self):
        super().__init__()
        backbone = nn.Module()
        backbone.resinit = nn.Sequential(OrderedDict())
        for i, (inputs, outputs) in enumerate([(3, 8), (8, 8), (8, 16)], 1):
            layers = conv(inputs, outputs, 3, 1 if i > 1 else 2)
            for name, layer in zip(
                ('conv', 'bn', 'relu'), (*layers, nn.ReLU()), strict=True
            ):
                backbone.resinit.add_module(f'{name}{i}', layer)
        backbone.maxpool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        for i, stage in enumerate(dilated_stages(16, 4, contracted=True), 1):
            backbone.add_module(f'layer{i}', stage)
        self.backbone = backbone
        official = Official(2020, True, [(2, 3)])
        self.isa_head, self.cls_head, self.dsn_head = official.children()
        self.isa_head[0] = nn.Conv2d(128, 8, 3, padding=1, bias=False)
        self.dsn_head[0] = nn.Conv2d(64, 6, 3, padding=1, bias=False)
        self.heads = official.forward

    def forward(self, picture):
        mean = torch.tensor([102.9801, 115.9465, 122.7717])[
            :, None, None
        ].double()
        *layers, last = self.backbone.children()
        third = nn.Sequential(*layers)(picture - mean)
        return self.heads(last(third), third)


def test_resnet_gives_the_official_output():
    """The config as it is but for widths and what the tool says it needs."""
    torch.manual_seed(0)
    official = randomize(ResNetISA())
    weights, report = converter('isanet')(official.state_dict())
    assert 'negative_slope=0.01' in str(report)

    def narrow(cfg):
        cfg.backbone.update(base_channels=4, stem_channels=16)
        leaky = dict(type='LeakyReLU', negative_slope=0.01)
        cfg.decode_head.update(
            in_channels=128, channels=8, isa_channels=4, down_factor=(2, 3)
        )
        cfg.decode_head.update(
            num_classes=5, act_cfg=leaky, attention=dict(value_channels=6)
        )
        cfg.auxiliary_head.update(
            in_channels=64, channels=6, num_classes=5, act_cfg=leaky
        )
        for head in (cfg.decode_head, cfg.auxiliary_head):
            head.pop('sampler', None)  # of the 19 classes

    name = 'isanet_r50-d8_4xb2-paper-40k_cityscapes-512x1024.py'
    model = build(f'isanet/{name}', narrow)
    model.load_state_dict(weights, strict=True)
    # At stride 8 with a pooling that rounds up: 8x12.
    pictures = torch.randint(0, 256, (2, 3, 60, 90), dtype=torch.uint8)
    data = model.data_preprocessor({'inputs': list(pictures)})
    with torch.no_grad():
        features = model.extract_feat(data['inputs'].double())
        got = model.decode_head(features), model.auxiliary_head(features)
        expected = official(pictures.double())
        assert expected[0].shape[2:] == (8, 12)
        for answer, truth in zip(got, expected, strict=True):
            assert_same(answer, truth)


WIDTHS = (4, 8, 16, 32)  # of HRNet's branches


def conv(inputs, outputs, size=3, stride=1):
    """With In-Place ABN that has no activation, as in HRNet."""
    layer = nn.Conv2d(
        inputs, outputs, size, stride, padding=size // 2, bias=False
    )
    return layer, ABN(outputs)


def enlarged(x, like):
    return F.interpolate(
        x, like.shape[2:], mode='bilinear', align_corners=True
    )


class Fusion(nn.Module):
    """Branches of HRNet, each then with a map of each other one."""

    def __init__(self, count):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(Block(width, width)) for width in WIDTHS[:count]
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self.path(j, i) for j in range(count))
            for i in range(count)
        )

    def path(self, source, target):
        inputs, outputs = WIDTHS[source], WIDTHS[target]
        if source == target:
            return None
        if source > target:
            return nn.Sequential(*conv(inputs, outputs, 1))
        steps = nn.Sequential()
        for _ in range(target - source - 1):
            steps.append(nn.Sequential(*conv(inputs, inputs, 3, 2), nn.ReLU()))
        return steps.append(nn.Sequential(*conv(inputs, outputs, 3, 2)))

    def forward(self, x):
        x = [branch(y) for branch, y in zip(self.branches, x, strict=True)]
        fused = []
        for i, paths in enumerate(self.fuse_layers):
            total = torch.zeros_like(x[i])
            for j, path in enumerate(paths):
                y = x[j] if path is None else path(x[j])
                total = total + (enlarged(y, total) if j > i else y)
            fused.append(total.relu())
        return fused


class HRNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 64, 3, 2)
        self.conv2, self.bn2 = conv(64, 64, 3, 2)
        self.layer1 = nn.Sequential(Block(64, 4, expansion=4))

        def new(inputs, outputs, stride=2):
            return nn.Sequential(*conv(inputs, outputs, 3, stride), nn.ReLU())

        self.transition1 = nn.ModuleList(
            [new(16, 4, 1), nn.Sequential(new(16, 8))]
        )
        self.transition2 = nn.ModuleList(
            [None, None, nn.Sequential(new(8, 16))]
        )
        self.transition3 = nn.ModuleList(
            [None, None, None, nn.Sequential(new(16, 32))]
        )
        for count in (2, 3, 4):
            setattr(self, f'stage{count}', nn.Sequential(Fusion(count)))

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        x = self.layer1(self.bn2(self.conv2(x)).relu())
        maps = self.stage2([layer(x) for layer in self.transition1])
        maps = self.stage3([*maps, self.transition2[-1](maps[-1])])
        return self.stage4([*maps, self.transition3[-1](maps[-1])])


class HRNetISA(nn.Module):
    """openseg's network of 2019 on a picture in BGR of 0 to 255."""

    def __init__(self):
        super().__init__()
        self.backbone = HRNet()
        official = Official(2019, True, [(2, 3)])
        self.isa_head = official.isa_head
        self.isa_head[0] = nn.Conv2d(sum(WIDTHS), 8, 3, padding=1)
        self.cls_head = nn.Conv2d(8, 19, 1, bias=False)

    def forward(self, picture):
        # The order of the means is that of RGB, the picture's is not.
        mean = torch.tensor([0.485, 0.456, 0.406]).double()[:, None, None]
        std = torch.tensor([0.229, 0.224, 0.225]).double()[:, None, None]
        maps = self.backbone((picture / 255 - mean) / std)
        x = torch.cat([enlarged(x, maps[0]) for x in maps], 1)
        x = self.isa_head[1](self.isa_head[0](x))
        module = self.isa_head[2]
        both = torch.cat([x, module.stages[0](x)], 1)
        return enlarged(self.cls_head(module.conv_bn(both)), picture)


def test_hrnet_gives_the_official_output():
    """The config as it is but for widths; from picture to logits."""
    torch.manual_seed(0)
    official = randomize(HRNetISA())
    weights, report = converter('isanet')(official.state_dict())
    assert any('isanet_hr48_' in note for note in report.notes)

    def narrow(cfg):
        extra = cfg.backbone.extra
        extra.stage1.update(num_blocks=(1,), num_channels=(4,))
        for i in (2, 3, 4):
            extra[f'stage{i}'].update(
                num_modules=1, num_blocks=(1,) * i, num_channels=WIDTHS[:i]
            )
        head = cfg.decode_head
        head.update(in_channels=WIDTHS, channels=8, isa_channels=4)
        head.down_factor = (2, 3)
        head.attention.value_channels = 6

    model = build(
        'isanet/isanet_hr48_4xb2-paper-80k_cityscapes-512x1024.py', narrow
    )
    model.load_state_dict(weights, strict=True)
    # Stages of 18x27, 9x14, 5x7 and 3x4: not each twice the next.
    pictures = torch.randint(0, 256, (2, 3, 72, 108), dtype=torch.uint8)
    data = model.data_preprocessor({'inputs': list(pictures)})
    with torch.no_grad():
        got = model.encode_decode(
            data['inputs'].double(), [dict(img_shape=(72, 108))]
        )
        assert_same(got, official(pictures.double()))
