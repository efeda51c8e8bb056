# Copyright (c) mmseg_attn contributors.
"""Layers as the papers' code makes them, projections and all."""

import pytest
import torch
import torch.nn.functional as F

from mmseg_attn.layers import (
    ChannelLinearAttention,
    EfficientAttention,
    LinearAttention,
)


def start(layer):
    torch.manual_seed(0)
    for parameter in layer.double().parameters():
        torch.nn.init.normal_(parameter)
    return layer, torch.randn(2, 16, 3, 5, dtype=torch.float64)


def rows(x, conv):
    """(B, n, C) of a 1x1 convolution."""
    return F.conv2d(x, conv.weight, conv.bias).flatten(2).mT


@pytest.mark.parametrize('heads', [1, 4])
def test_efficient_attention(heads):
    """Keys of half the channels, softmax within each head, a residual."""
    layer, x = start(EfficientAttention(16, num_heads=heads))
    assert layer.keys.out_channels == layer.queries.out_channels == 8
    assert layer.values.out_channels == 16
    q, k, v = (
        rows(x, conv).unflatten(-1, (heads, -1))
        for conv in (layer.queries, layer.keys, layer.values)
    )
    q = q.exp() / q.exp().sum(-1, keepdim=True)
    k = k.exp() / k.exp().sum(1, keepdim=True)
    weights = torch.einsum('bihd,bjhd->bhij', q, k)
    out = torch.einsum('bhij,bjhd->bihd', weights, v).flatten(2)
    out = out.mT.unflatten(-1, (3, 5))
    with torch.no_grad():
        expected = x + layer.reprojection(out)
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize('kernel', [False, True])
def test_linear_attention(kernel):
    """1 + cos, or MANet's kernel; queries and keys an eighth as wide."""
    options = dict(feature_map='softplus') if kernel else {}
    layer, x = start(LinearAttention(16, **options))
    assert layer.query_conv.out_channels == layer.key_conv.out_channels == 2
    q, k, v = (
        rows(x, conv)
        for conv in (layer.query_conv, layer.key_conv, layer.value_conv)
    )
    if kernel:
        q, k = (1 + q.exp()).log(), (1 + k.exp()).log()
    else:
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    weights = q @ k.mT + (not kernel)
    total = weights.sum(-1, keepdim=True) + 1e-6 * q.sum(-1, keepdim=True)
    out = (weights / total @ v).mT.unflatten(-1, (3, 5))
    with torch.no_grad():
        torch.testing.assert_close(layer(x), x + layer.gamma * out)
    assert (LinearAttention(16).gamma == 0).all()


def test_channel_linear_attention():
    """The authors' form is the default; gamma starts at 0."""
    layer, x = start(ChannelLinearAttention())
    flat = x.flatten(2)  # (B, C, n)
    unit = flat / flat.norm(dim=1, keepdim=True)
    mixed = flat.sum(1, keepdim=True) + flat @ unit.mT @ unit
    total = 15 + unit @ (unit.sum(1) + 1e-6)[..., None]
    expected = x + layer.gamma * (mixed / total).view_as(x)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected)
    assert (ChannelLinearAttention().gamma == 0).all()
