# Copyright (c) mmseg_attn contributors.
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample


def build(type='mmseg_attn.ISAHead', **kwargs):
    torch.manual_seed(0)
    cfg = dict(
        type=type,
        in_channels=24,
        channels=16,
        isa_channels=8,
        down_factor=(4, 8),
        num_classes=5,
        norm_cfg=dict(type='BN'),
    )
    return MODELS.build({**cfg, **kwargs})


CFGS = [
    dict(norm_cfg=dict(type='BN')),
    dict(norm_cfg=None),  # the host's default
    dict(norm_cfg=dict(type='BN'), act_cfg=None),
]


@pytest.mark.parametrize('cfgs', CFGS)
@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('size', [(16, 24), (13, 19), (3, 5)])
def test_equals_the_hosts_head(size, training, cfgs):
    cfgs = dict(cfgs, dropout_ratio=0)
    ours, host = build(**cfgs), build('ISAHead', **cfgs)
    ours.load_state_dict(host.state_dict(), strict=True)
    assert set(ours.state_dict()) == set(host.state_dict())
    ours, host = ours.double(), host.double()
    host.load_state_dict(ours.state_dict(), strict=True)
    for head in (ours, host):
        head.train(training)
    x = [torch.randn(2, 24, *size, dtype=torch.float64)]
    label = torch.randint(0, 5, (2, 1, 64, 64))
    samples = [SegDataSample(gt_sem_seg=PixelData(data=v)) for v in label]
    torch.testing.assert_close(ours(x), host(x), rtol=0, atol=1e-9)
    losses = [head.loss(x, samples, {}) for head in (ours, host)]
    torch.testing.assert_close(losses[0], losses[1])


def test_equals_the_hosts_head_in_single_precision():
    ours, host = build().eval(), build('ISAHead').eval()
    ours.load_state_dict(host.state_dict())
    x = [torch.randn(1, 24, 33, 21)]
    with torch.no_grad():
        torch.testing.assert_close(ours(x), host(x), rtol=0, atol=1e-5)


def test_several_partitions_work_side_by_side():
    head = build(down_factor=[(4, 8), (2, 3)]).eval()
    assert [a.partition for a in head.attentions] == [(4, 8), (2, 3)]
    x = torch.randn(1, 24, 9, 11)
    with torch.no_grad():
        y = head.in_conv(x)
        both = [attention(y) for attention in head.attentions]
        fused = head.out_conv(torch.cat([*both, head.up_conv(y)], 1))
        torch.testing.assert_close(head([x]), head.conv_seg(fused))
    assert fused.shape == (1, 16, 9, 11)


def test_form_of_2019_ends_in_a_plain_convolution():
    head = build(attention=dict(output_norm=False))
    names = [n for n in head.state_dict() if 'output_project' in n]
    assert sorted(names) == [
        f'{side}_relation.output_project.conv.{leaf}'
        for side in ('global', 'local')
        for leaf in ('bias', 'weight')
    ]
    # Without the activation its output has both signs.
    out = head.attentions[0](torch.randn(1, 16, 8, 8))
    assert out.min() < 0 < out.max()


def test_bad_partitions_are_explained():
    with pytest.raises(ValueError, match='two positive integers'):
        build(down_factor=(8,))
    with pytest.raises(ValueError, match='several'):
        build(down_factor=())
    with pytest.raises(ValueError, match='several, got 8'):
        build(down_factor=8)


def test_parameters_of_the_host_and_the_specs():
    """With 512 channels: 2.36 M in the attention, 11.80 M with in_conv."""
    cfg = dict(in_channels=2048, channels=512, isa_channels=256)
    count = sum(
        p.numel()
        for n, p in build(**cfg).named_parameters()
        if 'bn' not in n and not n.endswith('bias') and 'conv_seg' not in n
    )
    host = build('ISAHead', **cfg)
    assert count == sum(
        p.numel()
        for n, p in host.named_parameters()
        if 'bn' not in n and not n.endswith('bias') and 'conv_seg' not in n
    )
    assert round(count / 1e6, 2) == 11.80


def test_functional_call_takes_the_names_of_the_modules():
    """Not those of the state dict, which are the host's."""
    head, other = build().eval(), build().eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    x = [torch.randn(1, 24, 16, 24)]
    tensors = dict(other.named_parameters()) | dict(other.named_buffers())
    assert not torch.equal(head(x), other(x))
    called = torch.func.functional_call(head, tensors, (x,), strict=True)
    assert torch.equal(called, other(x))
