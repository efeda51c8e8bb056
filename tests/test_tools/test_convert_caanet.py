# Copyright (c) mmseg_attn contributors.
"""Checkpoints of CAA and of its author's CAR: their forward, re-stated."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from converting import assert_same, build, converter, run
from mmengine.config import Config
from tiny_training import ROOT
from torch import nn

from mmseg_attn.errors import UserError

SUFFIX = '/.ATTRIBUTES/VARIABLE_VALUE'
# Part of the head -> its name in CAA and in CAR.
NAMES = {
    'entry': ('seg_head/entry_convbnrelu', 'head/attention_entry_conv'),
    'block': ('seg_head/ca_blocks/0', 'head/caa_block'),
    'end': ('seg_head/end_convbnrelu', 'head/attention_end_conv'),
    'image': (
        'seg_head/image_level_block/convbnrelu',
        'head/image_level_block/convbnrelu',
    ),
    'last': ('seg_head_convbnrelu', 'head/end_conv'),
    'logits': ('logits_conv', 'logits_conv'),
    'aux': ('aux_feature_convbnrelu0', 'head/aux_conv'),
    'aux_logits': ('aux_loss_logits_conv', 'aux_logits_convs/0'),
}
# Repeats, channels, kernel, stride and expansion of EfficientNet-B0's blocks.
B0 = (
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
)


class Variables(dict):
    """TensorFlow's names and layouts, written and applied to (B, C, H, W)."""

    def __init__(self):
        super().__init__()
        self.generator = np.random.default_rng(0)

    def normal(self, name, *shape, scale=1.0):
        drawn = scale * self.generator.normal(size=shape)
        self[name] = drawn.astype(np.float32)

    def add_norm(self, name, channels):
        for leaf in ('gamma', 'beta', 'moving_mean'):
            self.normal(f'{name}/{leaf}', channels)
        self[f'{name}/moving_variance'] = np.float32(
            self.generator.uniform(0.5, 2, channels)
        )

    def add_conv(self, name, size, inputs, outputs, bias=False):
        scale = (size * size * inputs / 6) ** -0.5
        self.normal(f'{name}/kernel', size, size, inputs, outputs, scale=scale)
        if bias:
            self.normal(f'{name}/bias', outputs)

    def add_unit(self, name, *sizes):
        self.add_conv(f'{name}/conv', *sizes)
        self.add_norm(f'{name}/bn', sizes[-1])

    def tensor(self, name):
        return torch.from_numpy(self[name]).double()

    def norm(self, name, x):
        names = ('moving_mean', 'moving_variance', 'gamma', 'beta')
        values = (self.tensor(f'{name}/{leaf}') for leaf in names)
        return F.batch_norm(x, *values, eps=1e-3)

    def conv(self, name, x):
        """Of stride 1."""
        kernel = self.tensor(f'{name}/kernel').permute(3, 2, 0, 1)
        bias = f'{name}/bias'
        bias = self.tensor(bias) if bias in self else None
        return F.conv2d(x, kernel, bias, padding=kernel.shape[-1] // 2)

    def unit(self, name, x):
        x = self.conv(f'{name}/conv', x)
        return self.norm(f'{name}/bn', x).relu()


def add_heads(v, channels, later):
    """Of an attention of 16 channels on a map of so many."""
    n = {part: names[later] for part, names in NAMES.items()}
    v.add_unit(n['entry'], 3, channels, 16)
    for name, width in (('v_querykey', 6), ('h_querykey', 6), ('value', 16)):
        v.add_unit(f'{n["block"]}/{name}_convbnrelu', 1, 16, width)
    for gate in ('v_c_attention', 'h_c_attention'):
        name = f'{n["block"]}/{gate}'
        for i in range(5):
            v.normal(f'{name}/denses/{i}/kernel', 4 if i else 16, 4)
        v.normal(f'{name}/dense_end/kernel', 4, 16)
    v.add_unit(n['end'], 1, 16, 16)
    v.add_unit(n['image'], 1, channels, 16)
    v.add_unit(n['last'], 1, 32, 12)
    v.add_conv(n['logits'], 1, 12, 59, bias=True)
    v.add_unit(n['aux'], 3 if later else 1, channels, 8)
    v.add_conv(n['aux_logits'], 1, 8, 59, bias=True)


def add_regularization(v, convs):
    """CAR's linear convolution, and those instead of the last one."""
    if convs:
        for name in [k for k in v if k.startswith('head/end_conv/')]:
            del v[name]
        v.add_conv('head/gta/end_conv', 1, 12, 12)
        v.add_norm('head/gta/end_norm', 12)
    else:
        v.add_unit('head/end_conv', 1, 12, 12)
    v.add_conv('head/gta/linear_conv', 1, 32, 12, bias=True)
    v.normal('head/gta/last_class_center', 1, 59, 12)


def columns(v, name, guide, value):
    """Attention along the height, with the authors' 5-D tensor."""
    scores = torch.einsum('bciw,bcjw->bwij', guide, guide)
    products = torch.einsum('bwij,bcjw->bijwc', scores.softmax(-1), value)
    gate = products.mean((2, 3))
    for i in range(5):
        gate = F.leaky_relu(gate @ v.tensor(f'{name}/denses/{i}/kernel'), 0.2)
    gate = (gate @ v.tensor(f'{name}/dense_end/kernel')).sigmoid()
    return (products * gate[:, :, None, None]).sum(2).permute(0, 3, 1, 2)


def heads(v, x, later):
    """Logits and those of the auxiliary head."""
    n = {part: names[later] for part, names in NAMES.items()}
    b = n['block']
    entry = v.unit(n['entry'], x)
    y = v.unit(f'{b}/value_convbnrelu', entry)
    guide = v.unit(f'{b}/v_querykey_convbnrelu', entry)
    y = columns(v, f'{b}/v_c_attention', guide, y)
    guide = v.unit(f'{b}/h_querykey_convbnrelu', entry)
    y = columns(v, f'{b}/h_c_attention', guide.mT, y.mT).mT
    y = v.unit(n['end'], y)
    image = v.unit(n['image'], x.mean((2, 3), keepdim=True))
    y = torch.cat([y, image.expand_as(y)], 1)
    if 'head/gta/linear_conv/kernel' in v:
        y = v.conv('head/gta/linear_conv', y)
    if 'head/gta/end_conv/kernel' in v:
        y = v.conv('head/gta/end_conv', y)
        y = v.norm('head/gta/end_norm', y).relu()
    else:
        y = v.unit(n['last'], y)
    aux = v.unit(n['aux'], x)
    return v.conv(n['logits'], y), v.conv(n['aux_logits'], aux)


def add_efficientnet(v):
    v.add_conv('backbone/stem_conv', 3, 3, 32)
    v.add_norm('backbone/steam_conv_bn', 32)
    number, inputs = 0, 32
    for repeats, outputs, size, _, expansion in B0:
        for _ in range(repeats):
            name = f'backbone/blocks/{number}'
            width = expansion * inputs
            if expansion > 1:
                v.add_conv(f'{name}/expand_conv', 1, inputs, width)
                v.add_norm(f'{name}/expand_conv_bn', width)
            kernel = f'{name}/dwconv/depthwise_kernel'
            v.normal(kernel, size, size, width, 1, scale=1 / size)
            v.add_norm(f'{name}/dwconv_bn', width)
            squeezed = inputs // 4
            v.add_conv(f'{name}/se_reduce', 1, width, squeezed, bias=True)
            v.add_conv(f'{name}/se_expand', 1, squeezed, width, bias=True)
            v.add_conv(f'{name}/project_conv', 1, width, outputs)
            v.add_norm(f'{name}/project_bn', outputs)
            number, inputs = number + 1, outputs
    v.add_conv('backbone/top_conv', 1, 320, 1280)
    v.add_norm('backbone/top_bn', 1280)


def same(x, kernel, stride, dilation, groups):
    """TensorFlow's padding; the larger half comes last."""
    size = kernel.shape[-1]
    pads = []
    for length in (x.shape[3], x.shape[2]):
        reach = (-(-length // stride) - 1) * stride + dilation * (size - 1) + 1
        total = max(reach - length, 0)
        pads += [total // 2, total - total // 2]
    x = F.pad(x, pads)
    return F.conv2d(x, kernel, stride=stride, dilation=dilation, groups=groups)


def efficientnet(v, x):
    """What follows the last convolution, at stride 8."""
    kernel = v.tensor('backbone/stem_conv/kernel').permute(3, 2, 0, 1)
    x = same(x, kernel, 2, 1, 1)
    x = F.silu(v.norm('backbone/steam_conv_bn', x))
    number, reached, dilation = 0, 2, 1
    for repeats, _, _, first, expansion in B0:
        for repeat in range(repeats):
            name = f'backbone/blocks/{number}'
            stride = 1 if repeat else first
            if reached == 8:  # the block that would stride is dilated too
                dilation, stride = dilation * stride, 1
            reached *= stride
            y = x
            if expansion > 1:
                y = v.conv(f'{name}/expand_conv', y)
                y = F.silu(v.norm(f'{name}/expand_conv_bn', y))
            kernel = v.tensor(f'{name}/dwconv/depthwise_kernel')
            kernel = kernel.permute(2, 3, 0, 1)
            y = same(y, kernel, stride, dilation, y.shape[1])
            y = F.silu(v.norm(f'{name}/dwconv_bn', y))
            gate = y.mean((2, 3), keepdim=True)
            gate = F.silu(v.conv(f'{name}/se_reduce', gate))
            y = y * v.conv(f'{name}/se_expand', gate).sigmoid()
            y = v.conv(f'{name}/project_conv', y)
            y = v.norm(f'{name}/project_bn', y)
            x = x + y if x.shape == y.shape else y
            number += 1
    x = v.conv('backbone/top_conv', x)
    return F.silu(v.norm('backbone/top_bn', x))


def ours(config, channels, aux=1):
    def narrow(cfg):
        cfg.decode_head.update(channels=12, attention_channels=16)
        cfg.decode_head.attention.guided_channels = 6
        cfg.auxiliary_head.update(channels=8, kernel_size=aux)
        for head in (cfg.decode_head, cfg.auxiliary_head):
            head.in_channels = channels
        if 'arch' in cfg.backbone:
            cfg.backbone.arch = 'b0'
        else:
            cfg.backbone.update(base_channels=2)
        cfg.data_preprocessor.update(mean=[127.5] * 3, std=[127.5] * 3)

    return build(f'caanet/caanet_{config}.py', narrow)


@pytest.mark.parametrize(
    'later, car',
    [(False, None), (True, None), (True, 'linear'), (True, 'convs')],
)
def test_heads_give_the_official_output(later, car):
    v = Variables()
    add_heads(v, 24, later)
    if car:
        add_regularization(v, convs=car == 'convs')
    v.normal('backbone/conv1/kernel', 3, 3, 3, 8)
    weights, report = converter('caanet')(v)
    left = {'backbone/conv1/kernel'}
    if car:
        left.add('head/gta/last_class_center')
    assert {*report.left_out} == left
    size = 3 if later else 1
    assert f'channels=8, kernel_size={size}' in str(report)
    assert 'map of 24 channels' in str(report)
    config = 'r50-d8_4xb4-30k_pascal-context-59-513x513'
    model = ours(config, 24, size)
    model.backbone = nn.Identity()
    model.load_state_dict(weights, strict=True)
    x = torch.randn(2, 24, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        got = model.decode_head([x] * 4), model.auxiliary_head([x] * 4)
        for answer, expected in zip(got, heads(v, x, later), strict=True):
            assert_same(answer, expected)


def test_efficientnet_gives_the_official_output():
    """From a picture in BGR to logits, at an output stride of 8."""
    pytest.importorskip('mmcv._ext', reason='mmdet needs compiled ops')
    v = Variables()
    add_efficientnet(v)
    add_heads(v, 1280, later=False)
    weights, report = converter('caanet')(v)
    assert not report.left_out
    assert 'std=[127.5] * 3' in str(report)
    model = ours('effb7-d8_4xb4-30k_pascal-context-59-513x513', 1280)
    model.load_state_dict(weights, strict=True)
    pictures = torch.randint(0, 256, (2, 3, 48, 80), dtype=torch.uint8)
    data = model.data_preprocessor({'inputs': list(pictures)})
    with torch.no_grad():
        x = model.extract_feat(data['inputs'].double())
        got = model.decode_head(x), model.auxiliary_head(x)
        rgb = pictures.flip(1).double()
        y = efficientnet(v, 2 / 255 * rgb - 1)
        assert y.shape == (2, 1280, 6, 10)
        for answer, expected in zip(got, heads(v, y, False), strict=True):
            assert_same(answer, expected)


@pytest.mark.parametrize('arch, channels', [('b5', 2048), ('b7', 2560)])
def test_configs_take_the_widened_map(arch, channels):
    for path in (ROOT / 'configs/caanet').glob(f'*eff{arch}*.py'):
        cfg = Config.fromfile(path).model
        assert not cfg.backbone.contract_dilation
        assert cfg.backbone.out_indices[-1] == 6
        heads = cfg.decode_head, cfg.auxiliary_head
        assert {head.in_channels for head in heads} == {channels}


def saved(variables, path):
    np.savez(
        path,
        **{(k + SUFFIX).replace('/', '|'): v for k, v in variables.items()},
    )
    return path


def test_a_file_becomes_a_checkpoint(tmp_path):
    v = Variables()
    add_heads(v, 24, later=False)
    source = saved(v, tmp_path / 'caa.npz')
    done = run('caanet', source, tmp_path / 'ours.pth')
    assert done.returncode == 0, done.stderr
    assert f'{len(v)} weights read' in done.stdout
    assert '0 left out' in done.stdout and 'compared' in done.stdout
    ours = torch.load(tmp_path / 'ours.pth', weights_only=True)['state_dict']
    assert len(ours) == len(v)


@pytest.mark.parametrize(
    'part, said',
    [
        ('seg_head_convbnrelu', 'seg_head_convbnrelu is missing'),
        ('h_c_attention/dense_end', 'h_c_attention.dense_end.weight'),
        ('value_convbnrelu', 'value_convbnrelu.conv.weight'),
        ('c_attention', 'v_c_attention.denses.0.weight'),
        ('ca_blocks', 'is it CAA'),
        ('', 'is it CAA'),
    ],
)
def test_missing_parts_of_caa_are_named(part, said):
    v = Variables()
    add_heads(v, 24, later=False)
    for name in [k for k in v if part in k]:
        del v[name]
    with pytest.raises(UserError, match=said):
        converter('caanet')(v)


def test_several_blocks_are_refused():
    v = Variables()
    add_heads(v, 24, later=False)
    v.normal('seg_head/ca_blocks/1/value_convbnrelu/conv/kernel', 1, 1, 16, 6)
    with pytest.raises(UserError, match='several attention blocks'):
        converter('caanet')(v)
