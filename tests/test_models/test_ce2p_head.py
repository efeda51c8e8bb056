# Copyright (c) mmseg_attn contributors.
import math

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.datasets.transforms import GenerateEdge
from mmseg.structures import SegDataSample
from torch import nn

from mmseg_attn.models.decode_heads.ce2p_head import (
    CE2PHead,
    balanced_cross_entropy,
    edge_labels,
)
from mmseg_attn.registry import MODELS

WIDTHS = (8, 16, 24, 32)


@MODELS.register_module(force=True)
class AddMean(nn.Module):
    """An attention without parameters that counts its calls."""

    def __init__(self, in_channels):
        super().__init__()
        self.in_channels = in_channels
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x + x.mean((2, 3), keepdim=True)


@MODELS.register_module(force=True)
class MeanSquare(nn.Module):
    """A loss on features that remembers what it was given."""

    loss_name = 'loss_square'

    def forward(self, features, label, ignore_index):
        self.seen = features.shape, label.shape, ignore_index
        return features.square().mean()


def small_head(**kwargs):
    settings = {
        'in_channels': WIDTHS,
        'channels': 16,
        'decoder_channels': 12,
        'skip_channels': 4,
        'num_classes': 5,
        'norm_cfg': {'type': 'BN'},
        'align_corners': True,
        **kwargs,
    }
    return CE2PHead(**settings)


def stages(batch=2, height=13, width=9):
    torch.manual_seed(1)
    return [
        torch.randn(batch, channels, -(-height // s), -(-width // s))
        for channels, s in zip(WIDTHS, (1, 2, 4, 4), strict=True)
    ]


def samples(label):
    return [SegDataSample(gt_sem_seg=PixelData(data=x[None])) for x in label]


def test_parameter_count_of_the_paper():
    head = CE2PHead(num_classes=20, norm_cfg={'type': 'BN'})
    count = {
        name: sum(p.numel() for p in child.parameters())
        for name, child in head.named_children()
    }
    norm = 2  # a weight and a bias for each channel
    # CCNet's module, with the sizes of its code: bias in q, k and v only.
    assert count['convs'] == 9_437_184 + 2_359_296 + 2 * norm * 512
    assert count['attention'] == 328_321
    assert count['conv_cat'] == 11_796_480 + norm * 512
    # CE2P's decoder and edge branch.
    assert count['context_conv'] == 512 * 256 + norm * 256
    assert count['skip_conv'] == 256 * 48 + norm * 48
    assert count['decoder'] == (304 + 256) * 256 + 2 * norm * 256
    assert count['edge_convs'] == (256 + 512 + 1024) * 256 + 3 * norm * 256
    assert count['conv_side_edge'] == 256 * 2 * 9 + 2
    assert count['conv_edge'] == 6 * 2 + 2
    assert count['final_conv'] == 1024 * 256 + norm * 256
    assert count['conv_seg1'] == count['conv_seg'] == 256 * 20 + 20
    assert sum(count.values()) == sum(p.numel() for p in head.parameters())


def test_forward_gives_logits_at_the_first_stage():
    head = small_head().eval()
    assert head(stages()).shape == (2, 5, 13, 9)


def test_wiring_of_the_paper():
    """Which map feeds what, and in which order they are concatenated."""
    head = small_head(recurrence=2).double().eval()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.2)
    x = [stage.double() for stage in stages()]
    seen = {}
    for name in ('conv_seg', 'conv_seg1', 'conv_edge'):
        getattr(head, name).register_forward_hook(
            lambda m, i, out, name=name: seen.update({name: out})
        )

    def larger(map_):
        return nn.functional.interpolate(
            map_, x[0].shape[2:], mode='bilinear', align_corners=True
        )

    with torch.no_grad():
        context = head.convs[0](x[3])
        for _ in range(2):
            context = head.attention(context)
        context = torch.cat([x[3], head.convs[1](context)], 1)
        context = larger(head.context_conv(head.conv_cat(context)))
        skip = head.skip_conv(x[0])
        decoded = head.decoder(torch.cat([context, skip], 1))
        edges = [conv(x[i]) for i, conv in enumerate(head.edge_convs)]
        sides = [larger(head.conv_side_edge(edge)) for edge in edges]
        fused = torch.cat([decoded, *map(larger, edges)], 1)
        expected = dict(
            conv_seg=head.conv_seg(head.final_conv(fused)),
            conv_seg1=head.conv_seg1(decoded),
            conv_edge=head.conv_edge(torch.cat(sides, 1)),
        )
        seen.clear()
        label = torch.randint(0, 5, (2, 26, 18))
        head.loss(x, samples(label), {})
        torch.testing.assert_close(seen, expected)
        torch.testing.assert_close(head(x), expected['conv_seg'])


@pytest.mark.parametrize('ignored', [255, 4])
def test_ignored_label_is_that_of_the_head(ignored):
    head = small_head(
        loss_ccl={'type': 'mmseg_attn.CategoryConsistentLoss'},
        loss_decode={'type': 'CrossEntropyLoss', 'avg_non_ignore': True},
        ignore_index=ignored,
    ).eval()
    label = torch.randint(0, 4, (2, 26, 18))
    label[:, :9] = ignored
    losses = head.loss(stages(), samples(label), {})
    label[:, :9] = 7
    head.ignore_index = 7
    torch.testing.assert_close(losses, head.loss(stages(), samples(label), {}))
    assert not edge_labels(label, 1, 7)[:, :8].any()


def test_any_attention_by_config_is_applied_recurrence_times():
    head = small_head(
        attention={'type': 'mmseg_attn.AddMean'}, recurrence=3
    ).eval()
    head(stages())
    assert head.attention.calls == 3
    assert head.attention.in_channels == 16


def test_every_loss_reaches_its_parameters():
    head = small_head(
        loss_ccl={'type': 'mmseg_attn.MeanSquare'}, ccl_channels=6
    )
    nn.init.constant_(head.attention.gamma.scale, 0.5)
    label = torch.randint(0, 5, (2, 26, 18))
    losses = head.loss(stages(), samples(label), {})
    assert set(losses) == {
        'loss_ce',
        'acc_seg',
        'loss_ce_seg1',
        'acc_seg_seg1',
        'loss_edge',
        'loss_square',
    }
    assert head.loss_ccl.seen == ((2, 6, 4, 3), (2, 1, 26, 18), 255)
    sum(v for k, v in losses.items() if 'loss' in k).backward()
    # An unused parameter would stop distributed training.
    assert [n for n, p in head.named_parameters() if p.grad is None] == []

    head.zero_grad()
    head.loss(stages(), samples(label), {})['loss_edge'].backward()
    reached = {
        n.split('.')[0]
        for n, p in head.named_parameters()
        if p.grad is not None
    }
    assert reached == {'edge_convs', 'conv_side_edge', 'conv_edge'}


def test_without_feature_loss_there_is_no_embedding():
    assert not hasattr(small_head(), 'ccl_conv')


def test_all_ignored_gives_zero_and_zero_gradients():
    head = small_head()
    label = torch.full((2, 26, 18), 255)
    losses = head.loss(stages(), samples(label), {})
    total = sum(v for k, v in losses.items() if 'loss' in k)
    total.backward()
    assert total.item() == 0
    for name, parameter in head.named_parameters():
        grad = parameter.grad
        assert grad is None or not grad.any(), name


def test_head_learns():
    torch.manual_seed(0)
    head = small_head(dropout_ratio=0)
    label = torch.randint(0, 5, (2, 4, 3))
    label = label.repeat_interleave(6, 1).repeat_interleave(6, 2)
    inputs = stages(height=12, width=9)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9)
    history = []
    for _ in range(40):
        losses = head.loss(inputs, samples(label), {})
        loss = sum(v for k, v in losses.items() if 'loss' in k)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    majority = label.flatten().bincount().max() / label.numel()
    assert history[-1] < 0.3 * history[0]
    assert losses['acc_seg'] > 100 * float(majority) + 20


def test_padding_is_no_edge_in_the_loss():
    """As in the official code: of two halves, one of them padding."""
    head = small_head().eval()
    label = torch.full((1, 26, 18), 255)
    label[:, :10] = torch.arange(18) // 6
    seen = {}
    head.conv_edge.register_forward_hook(
        lambda m, i, out: seen.update(logits=out.detach())
    )
    found = head.loss(stages(1), samples(label), {})['loss_edge']
    logits = head._resize(seen['logits'], (26, 18))
    edge = torch.zeros(1, 26, 18, dtype=torch.long)
    # The left side of each border and, of slanting pairs of pixels, the right
    # one, both widened by one pixel.
    for column in (5, 11):
        edge[:, :11, column - 1 : column + 2] = 1
        edge[:, :10, column + 2] = 1
    share = edge.float().mean()
    expected = nn.functional.cross_entropy(
        logits, edge, weight=torch.stack([share, 1 - share])
    )
    torch.testing.assert_close(found.detach(), expected)


@pytest.mark.parametrize('width', [1, 3, 5])
def test_edges_are_those_of_the_host(width):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, (4, 6)).repeat(5, 0).repeat(4, 1)
    label[3:9, 10:] = 255
    label[-1] = 255
    truth = GenerateEdge(edge_width=width).transform(
        {'img_shape': label.shape, 'gt_seg_map': label}
    )['gt_edge_map']
    edge = edge_labels(torch.from_numpy(label)[None], width)[0].numpy()
    valid = label != 255
    assert 0 < truth[valid].mean() < 1
    assert (edge[valid] == truth[valid]).all()
    # Padding is no edge, but for what a border beside it is widened to.
    inside = cv2.erode((~valid).astype(np.uint8), np.ones((width, width)))
    assert inside.any() and not edge[inside > 0].any()


def test_balanced_cross_entropy_against_its_definition():
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 5, 4, dtype=torch.float64)
    edge = (torch.rand(2, 5, 4) < 0.2).long()
    pixels = [
        (
            float(-logits[b, :, y, x].log_softmax(0)[edge[b, y, x]]),
            int(edge[b, y, x]),
        )
        for b, y, x in np.ndindex(2, 5, 4)
    ]
    share = sum(e for _, e in pixels) / len(pixels)
    weight = {0: share, 1: 1 - share}
    truth = sum(loss * weight[e] for loss, e in pixels) / sum(
        weight[e] for _, e in pixels
    )
    ours = balanced_cross_entropy(logits, edge)
    assert math.isclose(float(ours), truth, rel_tol=1e-5)


@pytest.mark.parametrize('value', [0, 1])
def test_balanced_cross_entropy_of_one_kind(value):
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss = balanced_cross_entropy(logits, torch.full((1, 3, 3), value))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'in_channels': (8, 16)}, 'four stages'),
        ({'in_index': (0, 1, 2)}, 'four stages'),
        ({'recurrence': -1}, 'recurrence'),
        ({'edge_width': 2}, 'edge_width must be odd'),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        small_head(**wrong)
