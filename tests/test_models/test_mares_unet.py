# Copyright (c) mmseg_attn contributors.
"""Decoders of MAResU-Net and MANet."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmseg.registry import MODELS

ROOT = Path(__file__).parents[2]
NORM = dict(type='BN')


def network(depth=18, width=64, **head):
    torch.manual_seed(0)
    widths = [width, 2 * width, 4 * width, 8 * width]
    cfg = dict(
        type='EncoderDecoder',
        backbone=dict(
            type='ResNet',
            depth=depth,
            stem_channels=width,
            base_channels=width,
            norm_cfg=NORM,
        ),
        decode_head=dict(
            type='mmseg_attn.MAResUNetHead',
            in_channels=widths,
            num_classes=6,
            loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
            **head,
        ),
        test_cfg=dict(mode='whole'),
    )
    return MODELS.build(cfg)


def maps(height, width):
    """Stages of a picture, each half the one before, rounded up."""
    stages = []
    for channels in (8, 16, 32, 64):
        stages.append(torch.randn(2, channels, height, width))
        height, width = -(-height // 2), -(-width // 2)
    return stages


@pytest.mark.parametrize('depth, count', [(34, 26_276_510), (18, 16_168_350)])
def test_parameters_of_the_official_network(depth, count):
    """With six classes, ImageNet's classifier left out."""
    model = network(depth)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize('data', ['vaihingen', 'potsdam'])
def test_parameters_of_the_official_manet(data):
    path = ROOT / f'configs/manet/manet_r50_4xb4-80k_{data}-512x512.py'
    cfg = Config.fromfile(path).model
    cfg.pretrained = None
    model = MODELS.build(cfg)
    assert sum(p.numel() for p in model.parameters()) == 35_860_622
    for block in model.decode_head.attentions:
        options = block.position_attention.options
        assert options['feature_map'] == 'softplus'


@pytest.mark.parametrize('size', [(64, 96), (63, 33), (1, 1), (50, 70)])
def test_any_size(size):
    model = network(width=8).eval()
    with torch.no_grad():
        x = torch.randn(1, 3, *size)
        assert model.encode_decode(x, [dict(img_shape=size)]).shape == (
            (1, 6, *size)
        )
        if size == (64, 96):
            assert model(x).shape == (1, 6, 64, 96)


def test_the_classifier_starts_as_torchs():
    """As in the official code; the host's would be normal, with 0.01."""
    head = network().decode_head
    before = head.conv_seg.weight.clone()
    head.init_weights()
    assert torch.equal(head.conv_seg.weight, before)
    bound = (head.channels * 9) ** -0.5  # uniform, of the values that go in
    assert 0.9 * bound < before.abs().max() <= bound


@pytest.mark.parametrize('size', [(16, 24), (13, 9)])
def test_wiring_of_the_spec(size):
    """Attention on each stage; decoded ones are added below the skips.

    Twice a rounded half is one too many at the bottom and on the right.
    """
    head = network(width=8).decode_head.double().eval()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = [v.double() for v in maps(*size)]
    with torch.no_grad():
        d, *skips = (
            block(v)
            for block, v in zip(head.attentions[::-1], x[::-1], strict=True)
        )
        for decoder, skip in zip(head.decoders[:0:-1], skips, strict=True):
            height, width = skip.shape[2:]
            d = decoder(d)[..., :height, :width] + skip
        expected = head.conv_seg(head.up(head.decoders[0](d)))
        assert expected.std((2, 3)).min() > 0.1  # what comes by is seen
        torch.testing.assert_close(head(x), expected)


def test_attention_block_is_the_papers():
    """Positions by the formula, 1 + cos, and channels by DANet's."""
    block = network(width=8).decode_head.attentions[1].double().eval()
    attention = block.position_attention
    attention.gamma.data.fill_(0.6)
    block.channel_attention.gamma.scale.data.fill_(0.4)
    x = torch.randn(1, 16, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        t = block.start(x).relu()
        flat = t.flatten(2)[0]
        q, k, v = (
            conv(t).flatten(2)[0]
            for conv in (
                attention.query_conv,
                attention.key_conv,
                attention.value_conv,
            )
        )
        q, k = q / q.norm(dim=0), k / k.norm(dim=0)
        weights = 1 + q.T @ k
        weights = weights / weights.sum(1, keepdim=True)
        positions = t + 0.6 * (v @ weights.T).view_as(t)
        energy = flat @ flat.T
        energy = energy.amax(1, keepdim=True) - energy
        channels = t + 0.4 * (energy.softmax(1) @ flat).view_as(t)
        both = block.position_end(positions) + block.channel_end(channels)
        expected = F.relu(block.end[1](both))
        torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_half_precision_and_channels_last():
    """Sums over a map of 64x64 do not fit into fp16."""
    head = network(width=8).decode_head.eval()
    for block in head.attentions:
        block.channel_attention.gamma.scale.data.fill_(0.5)
    x = [30 * v[:1].abs() for v in maps(64, 64)]
    with torch.no_grad():
        expected = head(x)
        with torch.autocast('cpu', torch.float16):
            mixed = head(x)
        last = [v.to(memory_format=torch.channels_last) for v in x]
        torch.testing.assert_close(head(last), expected)
    assert (mixed - expected).abs().max() < 0.05 * expected.abs().max()


def test_norm_of_the_decoders():
    head = network(norm_cfg=dict(type='SyncBN')).decode_head
    norms = [m for m in head.modules() if 'Norm' in type(m).__name__]
    assert len(norms) == 12
    assert all(isinstance(m, torch.nn.SyncBatchNorm) for m in norms)


def test_other_attention_and_bad_arguments():
    cfg = dict(type='mmseg_attn.CrissCrossAttention', gamma_init=0.5)
    head = network(width=8, attention=cfg).decode_head
    assert head(maps(8, 8)).shape == (2, 6, 32, 32)
    same = [torch.randn(1, c, 8, 8) for c in (8, 16, 32, 64)]
    with pytest.raises(ValueError, match='strides .1, 2, 2, 2'):
        head(same)
    with pytest.raises(ValueError, match='four stages'):
        MODELS.build(
            dict(
                type='mmseg_attn.MAResUNetHead',
                in_channels=[8, 16],
                in_index=[0, 1],
                num_classes=6,
            )
        )
