# Copyright (c) mmseg_attn contributors.
import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample


def build(type='mmseg_attn.CCHead', **kwargs):
    cfg = dict(
        type=type,
        in_channels=24,
        channels=16,
        num_classes=5,
        norm_cfg=dict(type='BN'),
        align_corners=False,
    )
    torch.manual_seed(0)
    head = MODELS.build({**cfg, **kwargs})
    head.init_weights()
    return head


def samples(label):
    return [SegDataSample(gt_sem_seg=PixelData(data=x[None])) for x in label]


def features(batch=2, size=(7, 10)):
    return [torch.randn(batch, 24, *size)]


def test_equals_the_hosts_head():
    """Same weights, same output, gamma not 0. Needs a host with ops."""
    pytest.importorskip('mmcv._ext', reason='the host head needs ops')
    ours, host = build(), build('CCHead')
    ours.load_state_dict(host.state_dict(), strict=True)
    for head in (ours, host):
        head.cca.gamma.scale.data.fill_(0.8)
        head.eval()
    x = features(size=(33, 21))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), host(x), rtol=0, atol=1e-5)
    label = torch.randint(0, 5, (2, 66, 42))
    losses = [h.loss(x, samples(label), {}) for h in (ours, host)]
    assert losses[0].keys() == losses[1].keys()
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize('recurrence', [0, 1, 2, 3])
def test_recurrence_applies_one_layer_so_often(recurrence):
    head = build(recurrence=recurrence).eval()
    calls = []
    head.cca.register_forward_hook(lambda *_: calls.append(1))
    head(features())
    assert len(calls) == recurrence
    assert len(head.state_dict()) == len(build().state_dict())


@pytest.mark.parametrize('size', [(1, 1), (1, 9), (8, 1), (13, 6)])
def test_any_input_size(size):
    assert build().eval()(features(size=size)).shape == (2, 5, *size)


def test_attention_head_takes_any_layer():
    """With criss-cross attention it is CCHead under another name."""
    cc = build(recurrence=2).eval()
    generic = build(
        'mmseg_attn.AttentionHead',
        attention=dict(type='mmseg_attn.CrissCrossAttention'),
        recurrence=2,
    ).eval()
    generic.load_state_dict(
        {
            k.replace('cca.', 'attention.'): v
            for k, v in cc.state_dict().items()
        }
    )
    for layer in (cc.cca, generic.attention):
        layer.gamma.scale.data.fill_(0.5)
    x = features()
    assert torch.equal(cc(x), generic(x))


def test_attention_head_takes_layers_in_a_row():
    """+HV: along rows, then columns; all of it again in a second loop."""
    along = dict(type='mmseg_attn.CrissCrossAttention', gamma_init=0.5)
    head = build(
        'mmseg_attn.AttentionHead',
        attention=[dict(along, axis=1), dict(along, axis=0)],
        recurrence=2,
    ).eval()
    rows, columns = head.attention
    assert (rows.axes, columns.axes) == ((1,), (0,))
    x = features()
    with torch.no_grad():
        expected = head.convs[0](x[0])
        for layer in (rows, columns, rows, columns):
            expected = layer(expected)
        attended = head.map_and_attention(x)[1]
    assert torch.equal(attended, expected)


def test_attention_head_names_an_unknown_layer():
    with pytest.raises(KeyError, match='mmseg_attn.NoSuchAttention'):
        build(
            'mmseg_attn.AttentionHead',
            attention=dict(type='mmseg_attn.NoSuchAttention'),
        )


def test_bad_arguments_are_explained():
    with pytest.raises(ValueError, match='recurrence.*-1'):
        build(recurrence=-1)
    with pytest.raises(ValueError, match='recurrence.*1.5'):
        build(recurrence=1.5)
    head = build(
        loss_ccl=dict(
            type='mmseg_attn.CategoryConsistentLoss', loss_name='loss_ce'
        )
    )
    label = torch.randint(0, 5, (2, 14, 20))
    with pytest.raises(ValueError, match="'loss_ce'.*loss_name"):
        head.loss(features(), samples(label), {})


def test_consistent_loss_reaches_the_attention():
    head = build(
        loss_ccl=dict(type='mmseg_attn.CategoryConsistentLoss'),
        ccl_channels=4,
    )
    head.cca.gamma.scale.data.fill_(0.5)
    label = torch.randint(0, 5, (2, 14, 20))
    losses = head.loss(features(), samples(label), {})
    assert set(losses) == {'loss_ce', 'acc_seg', 'loss_ccl'}
    losses['loss_ccl'].backward()
    assert head.ccl_conv.out_channels == 4
    assert head.cca.value_conv.weight.grad.abs().sum() > 0
    assert head.conv_seg.weight.grad is None
    # The embedding serves the loss alone.
    assert head.eval()(features()).shape == (2, 5, 7, 10)


def test_loss_of_a_batch_without_labels_is_zero():
    head = build(loss_ccl=dict(type='mmseg_attn.CategoryConsistentLoss'))
    label = torch.full((2, 14, 20), 255)
    losses = head.loss(features(), samples(label), {})
    assert losses['loss_ccl'] == 0 and losses['loss_ce'] == 0
    (losses['loss_ccl'] + losses['loss_ce']).backward()
    assert all(
        p.grad is None or p.grad.isfinite().all() for p in head.parameters()
    )


def test_learns_what_only_context_tells():
    """The class of every pixel is written in its row's first pixel."""
    torch.manual_seed(0)
    scores = {}
    for recurrence in (0, 1):
        head = build(recurrence=recurrence, num_classes=2, channels=16)
        head.train()
        optimizer = torch.optim.AdamW(head.parameters(), lr=5e-3)
        rng = np.random.default_rng(0)
        accuracy = []
        for step in range(120):
            row = torch.from_numpy(rng.integers(0, 2, (4, 12)))
            x = torch.zeros(4, 24, 12, 12)
            # A key at the left of each row says 0 or 1; noise elsewhere.
            x[:, 0, :, 0] = 3.0 * (row * 2 - 1)
            x[:, 1, :, 0] = 3.0
            x[:, 2:] = 0.1 * torch.randn(4, 22, 12, 12)
            label = row[:, :, None].expand(4, 12, 12).clone()
            label[:, :, :6] = 255  # near the key convolutions see it
            loss = head.loss([x], samples(label), {})
            optimizer.zero_grad()
            loss['loss_ce'].backward()
            optimizer.step()
            if step >= 100:
                accuracy.append(float(loss['acc_seg']))
        scores[recurrence] = sum(accuracy) / len(accuracy)
    assert scores[0] < 65 < 85 < scores[1], scores
