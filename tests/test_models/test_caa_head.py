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


def test_last_stage_of_the_configs_has_a_grid():
    """Dilation 4 times (1, 2, 4); the host's multi_grid takes its place."""
    cfg = Config.fromfile(ROOT / 'configs/_base_/models/caanet_r50-d8.py')
    backbone = cfg.model.backbone
    backbone.update(base_channels=2, norm_cfg=dict(type='BN'))
    stages = MODELS.build(backbone)
    dilations = [
        [block.conv2.dilation[0] for block in getattr(stages, f'layer{i}')]
        for i in (3, 4)
    ]
    assert dilations == [[1, 2, 2, 2, 2, 2], [4, 8, 16]]


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
