# Copyright (c) mmseg_attn contributors.
import pytest
import torch
import torch.nn.functional as F

from mmseg_attn.layers import SqueezeAttention


def build(*args, **kwargs):
    torch.manual_seed(0)
    return SqueezeAttention(*args, **kwargs).double().eval()


def conv(x, module):
    x = F.conv2d(x, module.conv.weight, padding=1)
    bn = module.bn
    x = F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias)
    return x.relu()


@pytest.mark.parametrize('gate', ['none', 'sigmoid', 'relu'])
@pytest.mark.parametrize('interpolation', ['bilinear', 'nearest'])
def test_equals_the_equation(gate, interpolation):
    """Of an even map, where the pooling has no edge."""
    layer = build(6, 4, gate=gate, interpolation=interpolation)
    x = torch.randn(2, 6, 8, 10, dtype=torch.float64)
    pooled = x.unflatten(2, (4, 2)).unflatten(4, (5, 2)).mean((3, 5))
    residual, attention = x, pooled
    for main, attending in zip(layer.main, layer.attention, strict=True):
        residual, attention = conv(residual, main), conv(attention, attending)
    if gate == 'sigmoid':
        attention = 1 / (1 + torch.exp(-attention))
    if interpolation == 'nearest':
        attention = attention.repeat_interleave(2, 2).repeat_interleave(2, 3)
    else:
        attention = F.interpolate(attention, scale_factor=2, mode='bilinear')
    with torch.no_grad():
        torch.testing.assert_close(layer(x), attention * residual + attention)


def test_odd_maps_are_pooled_to_the_edge():
    """What lies inside a window is averaged, as few as it may be."""
    layer = build(3, 5, pool_stride=3)
    x = torch.randn(1, 3, 7, 5, dtype=torch.float64)
    pooled = x.new_empty(1, 3, 3, 2)
    for i in range(3):
        for j in range(2):
            window = x[..., 3 * i : 3 * i + 3, 3 * j : 3 * j + 3]
            pooled[..., i, j] = window.mean((2, 3))
    residual, attention = x, pooled
    for main, attending in zip(layer.main, layer.attention, strict=True):
        residual, attention = conv(residual, main), conv(attention, attending)
    attention = F.interpolate(attention, (7, 5), mode='bilinear')
    with torch.no_grad():
        torch.testing.assert_close(layer(x), attention * residual + attention)


def test_baselines_of_the_paper():
    """The convolutions alone, and the input weighed by its squeezed mean."""
    x = torch.randn(2, 32, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        for squeeze in ('none', 'global'):
            layer = build(32, squeeze=squeeze)
            expected = x
            for module in layer.main:
                expected = conv(expected, module)
            if squeeze == 'global':
                first, _, last, _ = layer.attention
                hidden = x.mean((2, 3)) @ first.weight.T + first.bias
                logits = hidden.clamp(min=0) @ last.weight.T + last.bias
                weight = 1 / (1 + torch.exp(-logits))
                expected = torch.einsum('bc,bchw->bchw', weight, x) + expected
                assert hidden.shape == (2, 2)
            torch.testing.assert_close(layer(x), expected)
    assert not hasattr(build(32, squeeze='none'), 'attention')
    with pytest.raises(ValueError, match='must be in_channels 4, got 8'):
        build(4, 8, squeeze='global')
    with pytest.raises(ValueError, match="'none', got 'whole'"):
        build(4, squeeze='whole')


def test_attention_of_0_and_1():
    """0 leaves nothing, 1 leaves the residual plus 1."""
    layer = build(3, 5)
    x = torch.randn(1, 3, 7, 9, dtype=torch.float64)
    norm = layer.attention[-1].bn
    with torch.no_grad():
        norm.weight.zero_()
        assert (layer(x) == 0).all()
        norm.bias.fill_(1)
        torch.testing.assert_close(layer(x), layer.main(x) + 1)


def test_parameters_are_twice_those_of_the_main_branch():
    layer = build(64, 64)
    main = sum(p.numel() for p in layer.main.parameters())
    assert sum(p.numel() for p in layer.parameters()) == 2 * main
    assert main == 2 * 9 * 64 * 64 + 4 * 64


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(gate='tanh'), "'none', 'sigmoid', 'relu', got 'tanh'"),
        (dict(interpolation='cubic'), "got 'cubic'"),
        (dict(kernel_size=2), 'kernel_size must be odd'),
        (dict(pool_stride=0), 'pool_stride must be a whole'),
    ],
)
def test_bad_options_fail_at_build(options, message):
    with pytest.raises(ValueError, match=message):
        SqueezeAttention(8, **options)
