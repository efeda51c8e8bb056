# Copyright (c) mmseg_attn contributors.
import pytest
import torch
import torch.nn.functional as F
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


def plain_conv(x, module, dilation=1):
    """Convolution, norm and activation, without the module's own call."""
    weight = module.conv.weight
    padding = dilation * (weight.shape[-1] // 2)
    x = F.conv2d(x, weight, padding=padding, dilation=dilation)
    bn = module.bn
    x = F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias)
    return x.relu()


def test_pyramid_as_in_the_official_code():
    """Attentions within 1, 2 x 2, 3 x 3 and 6 x 6 parts, beside the input."""
    head = build(pyramid=(1, 2, 3, 6), down_factor=(8, 4)).eval().double()
    assert [a.bins for a in head.attentions] == [1, 2, 3, 6]
    partitions = [a.partition for a in head.attentions]
    assert partitions == [(8, 4), (6, 3), (5, 3), (4, 2)]
    x = torch.randn(2, 24, 13, 9, dtype=torch.float64)
    with torch.no_grad():
        source = plain_conv(plain_conv(x, head.in_conv), head.attention_conv)
        maps = [attention(source) for attention in head.attentions]
        expected = plain_conv(torch.cat([*maps, x], 1), head.out_conv)
        torch.testing.assert_close(head._forward_feature([x]), expected)


def test_atrous_convolutions_as_in_the_official_code():
    """The attention, a 1x1 and three dilated convs, each half as wide."""
    dilations = (2, 3, 5)
    head = build(dilations=dilations).eval().double()
    x = torch.randn(2, 24, 13, 9, dtype=torch.float64)
    with torch.no_grad():
        entry = plain_conv(x, head.in_conv)
        (attention,) = head.attentions
        maps = [attention(plain_conv(entry, head.attention_conv))]
        for conv, dilation in zip(head.convs, (1, *dilations), strict=True):
            maps.append(plain_conv(entry, conv, dilation))
        assert [m.shape[1] for m in maps] == [8] * 5
        expected = plain_conv(torch.cat(maps, 1), head.out_conv)
        torch.testing.assert_close(head._forward_feature([x]), expected)


def test_combinations_have_the_official_sizes():
    """Weights of the convolutions of isa_block.py, of December 2019."""
    cfg = dict(in_channels=2048, channels=512)

    def block(width, keys):
        """Two of: keys and queries, projected twice, value, output."""
        return 2 * (2 * (width * keys + keys * keys) + 2 * width * width)

    entry = 2048 * 512 * 9
    for options, count in (
        (
            dict(isa_channels=256, pyramid=(1, 2, 3, 6)),
            entry + 512 * 512 * 9 + 4 * block(512, 256) + 4096 * 512,
        ),
        (
            dict(isa_channels=128, dilations=(12, 24, 36)),
            entry
            + 4 * 512 * 256 * 9
            + block(256, 128)
            + 512 * 256
            + 1280 * 512,
        ),
    ):
        head = build(**cfg, **options)
        assert count == sum(
            p.numel()
            for n, p in head.named_parameters()
            if n.endswith('.weight') and p.ndim == 4 and 'conv_seg' not in n
        )


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
    for options in (
        dict(dilations=(12, 24)),
        dict(down_factor=[(4, 8), (2, 3)]),
    ):
        with pytest.raises(ValueError, match='takes one down_factor and no'):
            build(pyramid=(1, 2), **options)


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
