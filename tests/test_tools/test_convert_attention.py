# Copyright (c) mmseg_attn contributors.
"""Converters of the authors' files: openseg's ISANet, CAA, single modules."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from tiny_training import ROOT
from torch import nn

from mmseg_attn.layers import EfficientAttention, LinearAttention


def convert(tool, *arguments):
    return subprocess.run(
        [
            sys.executable,
            ROOT / 'tools' / 'model_converters' / f'{tool}.py',
            *map(str, arguments),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )


class Norm(nn.Module):
    """The official nesting of a norm and its activation, or In-Place ABN."""

    def __new__(cls, channels, in_place):
        if not in_place:
            return nn.Sequential(
                nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
            )
        return nn.Sequential(ABN(channels))


class ABN(nn.BatchNorm2d):
    def forward(self, x):
        scale = self.weight.abs() + 1e-5
        x = F.batch_norm(
            x, self.running_mean, self.running_var, scale, self.bias
        )
        return F.leaky_relu(x, 0.01)


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
            self.W = nn.Conv2d(6, 8, 1)
        else:
            self.W = nn.Sequential(
                nn.Conv2d(6, 8, 1, bias=False), *Norm(8, in_place)
            )

    def forward(self, x):
        query, key = self.f_query(x).flatten(2), self.f_key(x).flatten(2)
        weights = (query.mT @ key / 2).softmax(-1)  # the root of 4 channels
        out = self.f_value(x).flatten(2) @ weights.mT
        return self.W(out.unflatten(2, x.shape[2:]))


class Stage(nn.Module):
    def __init__(self, era, in_place):
        super().__init__()
        self.long_range_sa = Attention(era, in_place)
        self.short_range_sa = Attention(era, in_place)

    def forward(self, x):
        """On a map that (2, 3) divides, loops over groups and windows."""
        y = torch.empty_like(x)
        for i in range(2):
            for j in range(3):
                y[..., i::2, j::3] = self.long_range_sa(x[..., i::2, j::3])
        z = torch.empty_like(x)
        for i in range(0, x.shape[2], 2):
            for j in range(0, x.shape[3], 3):
                window = (..., slice(i, i + 2), slice(j, j + 3))
                z[window] = self.short_range_sa(y[window])
        return z


class Official(nn.Module):
    """openseg's head and auxiliary head, with its names."""

    def __init__(self, era, in_place):
        super().__init__()

        def end(channels):
            return Norm(channels, in_place)

        self.isa_head = nn.Sequential(
            nn.Conv2d(12, 8, 3, padding=1, bias=era == 2019), *end(8)
        )
        module = nn.Module()
        module.stages = nn.ModuleList([Stage(era, in_place)])
        module.conv_bn = nn.Sequential(
            nn.Conv2d(16, 8, 1, bias=False), *end(8)
        )
        self.isa_head.append(module)
        self.cls_head = nn.Conv2d(8, 5, 1)
        self.dsn_head = nn.Sequential(
            nn.Conv2d(10, 6, 3, padding=1), *end(6), nn.Dropout2d(),
            nn.Conv2d(6, 5, 1),
        )  # fmt: skip
        for norm in self.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2)
                nn.init.normal_(norm.weight)
                nn.init.normal_(norm.bias)

    def forward(self, x, third):
        x = self.isa_head[1](self.isa_head[0](x))
        module = self.isa_head[2]
        both = torch.cat([x, module.stages[0](x)], 1)
        return self.cls_head(module.conv_bn(both)), self.dsn_head(third)


@pytest.mark.parametrize('in_place', [False, True])
@pytest.mark.parametrize('era', [2019, 2020])
def test_isanet_gives_the_official_output(tmp_path, era, in_place):
    torch.manual_seed(0)
    official = Official(era, in_place).eval()
    weights = {f'module.{k}': v for k, v in official.state_dict().items()}
    weights['module.backbone.resinit.bn2.bias'] = torch.zeros(3)
    weights['module.backbone.layer1.0.conv1.weight'] = torch.zeros(3)
    torch.save({'state_dict': weights}, tmp_path / 'theirs.pth')
    done = convert('isanet', tmp_path / 'theirs.pth', tmp_path / 'ours.pth')
    assert done.returncode == 0, done.stderr
    assert f'{len(weights)} weights read' in done.stdout
    assert '0 left out' in done.stdout and 'compared' in done.stdout
    assert ('negative_slope=0.01' in done.stdout) == in_place
    assert ('output_norm=False' in done.stdout) == (era == 2019)
    ours = torch.load(tmp_path / 'ours.pth', weights_only=True)['state_dict']
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
            down_factor=(2, 3),
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
        module.load_state_dict(own, strict=True)
        module.eval()
    x, third = torch.randn(1, 12, 6, 9), torch.randn(1, 10, 6, 9)
    with torch.no_grad():
        expected = official(x, third)
        for got, wanted in zip(
            (head([x]), aux([third])), expected, strict=True
        ):
            torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def test_another_network_is_refused(tmp_path):
    torch.save({'conv.weight': torch.zeros(1)}, tmp_path / 'theirs.pth')
    for tool in ('isanet', 'caanet'):
        done = convert(tool, tmp_path / 'theirs.pth', tmp_path / 'ours.pth')
        assert done.returncode and 'Traceback' not in done.stderr
    assert 'ca_blocks' in done.stderr or '.index' in done.stderr
    assert not (tmp_path / 'ours.pth').exists()


def caa_variables():
    """Names and layouts of the official head, 32 -> 16 channels."""
    generator = np.random.default_rng(0)

    def normal(*shape):
        return generator.normal(size=shape).astype(np.float32)

    found = {}

    def conv(name, size, inputs, outputs):
        found[f'{name}/conv/kernel'] = 0.3 * normal(
            size, size, inputs, outputs
        )
        for leaf in ('gamma', 'beta', 'moving_mean'):
            found[f'{name}/bn/{leaf}'] = normal(outputs)
        found[f'{name}/bn/moving_variance'] = 1 + abs(normal(outputs))

    conv('seg_head/entry_convbnrelu', 3, 24, 16)
    block = 'seg_head/ca_blocks/0/'
    conv(f'{block}v_querykey_convbnrelu', 1, 16, 6)
    conv(f'{block}h_querykey_convbnrelu', 1, 16, 6)
    conv(f'{block}value_convbnrelu', 1, 16, 16)
    for gate in ('v_c_attention', 'h_c_attention'):
        widths = [16, 4, 4, 4, 4, 4]
        for i in range(5):
            name = f'{block}{gate}/denses/{i}/kernel'
            found[name] = normal(widths[i], widths[i + 1])
        found[f'{block}{gate}/dense_end/kernel'] = normal(4, 16)
    conv('seg_head/end_convbnrelu', 1, 16, 16)
    conv('seg_head/image_level_block/convbnrelu', 1, 24, 16)
    conv('seg_head_convbnrelu', 1, 32, 12)
    found['logits_conv/kernel'] = normal(1, 1, 12, 5)
    found['logits_conv/bias'] = normal(5)
    found['backbone/conv1/kernel'] = normal(3, 3, 3, 8)
    return {f'{k}/.ATTRIBUTES/VARIABLE_VALUE': v for k, v in found.items()}


def test_caa_variables_become_the_head(tmp_path):
    variables = caa_variables()
    np.savez(
        tmp_path / 'caa.npz',
        **{k.replace('/', '|'): v for k, v in variables.items()},
    )
    done = convert('caanet', tmp_path / 'caa.npz', tmp_path / 'ours.pth')
    assert done.returncode == 0, done.stderr
    assert f'{len(variables)} weights read' in done.stdout
    assert '1 left out' in done.stdout and 'backbone/conv1' in done.stdout
    assert 'auxiliary_head.conv_seg stays as it is' in done.stdout
    head = MODELS.build(
        dict(
            type='mmseg_attn.CAAHead',
            in_channels=24,
            channels=12,
            attention_channels=16,
            attention=dict(guided_channels=6),
            num_classes=5,
            norm_cfg=dict(type='BN', eps=1e-3),
        )
    )
    ours = torch.load(tmp_path / 'ours.pth', weights_only=True)['state_dict']
    own = {k.removeprefix('decode_head.'): v for k, v in ours.items()}
    missing, unexpected = head.load_state_dict(own, strict=False)
    assert not unexpected
    assert all(name.endswith('num_batches_tracked') for name in missing)
    kernel = variables['seg_head/entry_convbnrelu/conv/kernel' + (
        '/.ATTRIBUTES/VARIABLE_VALUE')]  # fmt: skip
    wanted = torch.from_numpy(kernel).permute(3, 2, 0, 1)
    assert torch.equal(head.entry_conv.conv.weight, wanted)


@pytest.mark.parametrize(
    'part', ['seg_head_convbnrelu', 'h_c_attention/dense_end', 'ca_blocks']
)
def test_missing_parts_of_caa_are_named(tmp_path, part):
    kept = {
        k.replace('/', '|'): v
        for k, v in caa_variables().items()
        if part not in k
    }
    np.savez(tmp_path / 'caa.npz', **kept)
    done = convert('caanet', tmp_path / 'caa.npz', tmp_path / 'ours.pth')
    assert done.returncode and 'Traceback' not in done.stderr
    assert part.replace('/', '.') in done.stderr
    assert not (tmp_path / 'ours.pth').exists()


@pytest.mark.parametrize(
    'layer, module, arguments',
    [
        (
            'EfficientAttention',
            EfficientAttention(8, 4, 12, num_heads=2),
            (2,),
        ),
        ('LinearAttention', LinearAttention(16), ()),
    ],
)
def test_modules_are_taken_out(tmp_path, layer, module, arguments):
    weights = {f'net.att.{k}': v for k, v in module.state_dict().items()}
    weights['net.other.weight'] = torch.zeros(1)
    torch.save(weights, tmp_path / 'theirs.pth')
    heads = ['--num-heads', *arguments] if arguments else []
    done = convert(
        'attention_module', tmp_path / 'theirs.pth', tmp_path / 'ours.pth',
        layer, '--prefix', 'net.att.', *heads,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'net.other.weight: not below net.att.' in done.stdout
    ours = torch.load(tmp_path / 'ours.pth', weights_only=True)['state_dict']
    module.load_state_dict(ours, strict=True)
    other = {'EfficientAttention', 'LinearAttention'} - {layer}
    done = convert(
        'attention_module', tmp_path / 'theirs.pth', tmp_path / 'x.pth',
        *other, '--prefix', 'net.att.',
    )  # fmt: skip
    assert done.returncode and f'not of {other.pop()}' in done.stderr
    assert not (tmp_path / 'x.pth').exists()
