# Copyright (c) mmseg_attn contributors.
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmseg.registry import MODELS

from mmseg_attn.errors import UserError

ROOT = Path(__file__).parents[2]


def build(**kwargs):
    torch.manual_seed(0)
    cfg = dict(
        type='mmseg_attn.CAAHead',
        in_channels=24,
        channels=12,
        attention_channels=16,
        attention=dict(guided_channels=6),
        num_classes=5,
        norm_cfg=dict(type='BN', eps=1e-3),
    )
    return MODELS.build({**cfg, **kwargs})


def gate(mlp, pooled):
    for dense in mlp.denses:
        pooled = F.leaky_relu(pooled @ dense.weight.T, 0.2)
    return torch.sigmoid(pooled @ mlp.dense_end.weight.T)


def column_pass(guide, value, mlp):
    """The authors' equations as they stand, with the 5-D tensor.

    guide (B, c, H, W), value (B, C, H, W); attention along the height.
    """
    scores = torch.einsum('bciw,bcjw->bwij', guide, guide)
    weights = scores.softmax(-1)
    # Multiply now, sum later: (query row i, B, summed row j, W, C).
    alpha = torch.einsum('bwij,bcjw->ibjwc', weights, value)
    gates = gate(mlp, alpha.mean((2, 3)))  # (i, B, C)
    return (gates[:, :, None, None] * alpha).sum(2).permute(1, 3, 0, 2)


def test_equals_the_authors_equations():
    """All of the head, on random weights and statistics."""
    head = build().double().eval()
    for name, buffer in head.named_buffers():
        if name.endswith('running_mean'):
            buffer.normal_()
        elif name.endswith('running_var'):
            buffer.uniform_(0.5, 2)
    x = torch.randn(2, 24, 5, 8, dtype=torch.float64)
    block = head.attention
    with torch.no_grad():
        entry = head.entry_conv(x)
        value = block.value_convbnrelu(entry)
        y = column_pass(
            block.v_querykey_convbnrelu(entry), value, block.v_c_attention
        )
        y = column_pass(
            block.h_querykey_convbnrelu(entry).mT, y.mT, block.h_c_attention
        ).mT
        image = F.adaptive_avg_pool2d(x, 1)
        image = head.image_level_conv(image).expand(-1, -1, 5, 8)
        both = torch.cat([head.end_conv(y), image], 1)
        expected = head.conv_seg(head.seg_head_conv(both))
        torch.testing.assert_close(head([x]), expected)


@pytest.mark.parametrize('axes', [(0,), (1,), (0, 1), (1, 0)], ids=str)
def test_without_channel_attention(axes):
    """Plain axial attention, along columns, along rows, along both."""
    attention = dict(guided_channels=6, channel_attention=False, axes=axes)
    head = build(attention=attention).double().eval()
    block = head.attention
    x = torch.randn(2, 16, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = block.value_convbnrelu(x)
        for axis in axes:
            guide = getattr(block, f'{"vh"[axis]}_querykey_convbnrelu')(x)
            guide, value = (
                t.movedim(1, -1).movedim(1, -2)
                if axis == 0
                else t.movedim(1, -1)
                for t in (guide, expected)
            )
            weights = (guide @ guide.mT).softmax(-1)
            out = weights @ value
            if axis == 0:
                out = out.movedim(-2, 1)
            expected = out.movedim(-1, 1)
        torch.testing.assert_close(block(x), expected)
    names = {name.split('.')[0] for name, _ in block.named_parameters()}
    guides = {f'{"vh"[axis]}_querykey_convbnrelu' for axis in axes}
    assert names == guides | {'value_convbnrelu'}


@pytest.mark.parametrize('axes', [(), (2,), (0, 0)], ids=str)
def test_axes_are_checked(axes):
    with pytest.raises(ValueError, match='axes must be 0'):
        build(attention=dict(axes=axes))


def test_without_the_image_level_branch_and_with_more_attentions():
    head = build(image_level=False, num_attentions=2).double().eval()
    x = torch.randn(2, 24, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        first, second = head.attention
        y = head.end_conv(second(first(head.entry_conv(x))))
        expected = head.conv_seg(head.seg_head_conv(y))
        torch.testing.assert_close(head([x]), expected)
    names = [name for name, _ in head.named_parameters()]
    assert not any('image_level' in name for name in names)
    # One picture per process is enough then.
    head.train()([x[:1]])
    with pytest.raises(ValueError, match='num_attentions'):
        build(num_attentions=0)


def test_parameters_of_the_specs():
    """11.73 M with ResNet-101, without norms and classifier."""
    head = build(
        in_channels=2048,
        channels=256,
        attention_channels=512,
        attention=None,
    )
    parts = [
        module.weight.numel()
        for name, module in head.named_modules()
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear))
        and name != 'conv_seg'
    ]
    assert sum(parts) == 9_437_184 + 65_536 + 262_144 + 393_216 + 262_144 + (
        1_048_576 + 262_144
    )
    assert round(sum(parts) / 1e6, 2) == 11.73


def test_dropout_is_of_single_elements():
    head = build(dropout_ratio=0.5).train()
    out = head.dropout(torch.ones(1, 4, 8, 8))
    assert 0 < (out[0, 0] == 0).sum() < 64


def test_takes_one_map():
    with pytest.raises(ValueError, match="'resize_concat'"):
        build(
            in_channels=[8, 16],
            in_index=[0, 1],
            input_transform='multiple_select',
        )
    head = build(
        in_channels=[8, 16], in_index=[0, 1], input_transform='resize_concat'
    )
    maps = [torch.randn(2, 8, 6, 6), torch.randn(2, 16, 3, 3)]
    assert head(maps).shape == (2, 5, 6, 6)


@pytest.mark.parametrize(
    'stride, third, fourth',
    [(8, [1, *5 * [2]], [4, 8, 16]), (16, 6 * [1], [2, 4, 8])],
)
def test_last_stage_of_the_configs_has_a_grid(stride, third, fourth):
    """Dilation times (1, 2, 4); the host's multi_grid takes its place."""
    name = f'caanet_r50-d{stride}_4xb4-30k_pascal-context-59-513x513.py'
    cfg = Config.fromfile(ROOT / 'configs/caanet' / name)
    backbone = cfg.model.backbone
    backbone.update(base_channels=2, norm_cfg=dict(type='BN'))
    stages = MODELS.build(backbone)
    dilations = [
        [block.conv2.dilation[0] for block in getattr(stages, f'layer{i}')]
        for i in (3, 4)
    ]
    assert dilations == [third, fourth]
    maps = stages(torch.zeros(2, 3, 64, 64))
    assert maps[-1].shape[2:] == (64 // stride, 64 // stride)


@pytest.mark.parametrize('norm', ['BN', 'SyncBN'])
def test_one_picture_has_no_statistics(norm):
    """SyncBN of one process is BN."""
    head = build(norm_cfg=dict(type=norm)).train()
    one = torch.randn(1, 24, 5, 8)
    expected = f'one picture per process with {norm}.*2 or more.*SyncBN.*GN'
    with pytest.raises(UserError, match=expected):
        head([one])
    two = head([torch.cat([one, one])])
    assert two.shape == (2, 5, 5, 8)
    assert head.eval()([one]).shape == (1, 5, 5, 8)
    groups = build(norm_cfg=dict(type='GN', num_groups=2)).train()
    assert groups([one]).isfinite().all()


def test_other_errors_stay():
    head = build().train()
    with pytest.raises(RuntimeError, match='channels'):
        head([torch.randn(2, 23, 5, 8)])
