# Copyright (c) mmseg_attn contributors.
import sys

import pytest
import torch
from torch import nn

from mmseg_attn.models.backbones import DilatedEfficientNet


@pytest.fixture
def efficientnet():
    pytest.importorskip('mmcv._ext', reason='mmdet needs compiled ops')
    module = pytest.importorskip('mmdet.models.backbones.efficientnet')
    return module.EfficientNet


def randomize(network):
    """Statistics and norms that are not those of a fresh network."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    network.eval()  # mmdetection's does not return the network
    return network


@pytest.mark.parametrize('size', [(64, 96), (65, 97)])
def test_stride_32_is_mmdetections_network(efficientnet, size):
    theirs = randomize(efficientnet('b0', out_indices=(2, 3, 4, 5, 6)))
    ours = DilatedEfficientNet('b0', 32, out_indices=(2, 3, 4, 5, 6)).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        for a, b in zip(ours(x), theirs(x), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize('arch', ['b0', 'es'])
@pytest.mark.parametrize('stride, size', [(8, 65), (16, 64), (32, 97)])
def test_output_strides(efficientnet, arch, stride, size):
    network = DilatedEfficientNet(arch, stride).eval()
    with torch.no_grad():
        maps = network(torch.randn(1, 3, size, size))
    wanted = [min(s, stride) for s in (4, 8, 16, 32)]
    assert [m.shape[-1] for m in maps] == [-(-size // s) for s in wanted]
    plain = efficientnet(arch, out_indices=(2, 3, 4, 5))
    counts = [sum(p.numel() for p in n.parameters()) for n in (network, plain)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize('stride', [8, 16])
def test_dilated_network_holds_the_plain_one(efficientnet, stride):
    """Exactly, at each position that the plain network has.

    But for squeeze-and-excitation, which averages over the whole map.
    """
    networks = []
    for output_stride in (32, stride):
        network = DilatedEfficientNet('b0', output_stride, (5,)).double()
        for module in network.modules():
            if hasattr(module, 'se'):
                module.se = nn.Identity()
        networks.append(randomize(network))
    networks[1].load_state_dict(networks[0].state_dict())
    x = torch.randn(1, 3, 128, 192, dtype=torch.float64)
    with torch.no_grad():
        plain, dilated = (network(x)[0] for network in networks)
    # A strided convolution with SAME padding sits on each second position,
    # the last of each pair.
    step = 32 // stride
    torch.testing.assert_close(
        dilated[..., step - 1 :: step, step - 1 :: step], plain
    )


def test_channels_of_the_docstring(efficientnet):
    expected = {'b5': (40, 64, 176, 512, 2048), 'b7': (48, 80, 224, 640, 2560)}
    for arch, channels in expected.items():
        network = DilatedEfficientNet(arch, 8, out_indices=(2, 3, 4, 5, 6))
        widths = []
        for layer in network.layers[2:]:
            convs = [m for m in layer.modules() if isinstance(m, nn.Conv2d)]
            widths.append(convs[-1].out_channels)
        assert tuple(widths) == channels


def test_norms_can_keep_their_statistics(efficientnet):
    network = DilatedEfficientNet('b0', norm_eval=True).train()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert network.training and not any(norm.training for norm in norms)


def test_first_stages_can_be_frozen(efficientnet):
    network = DilatedEfficientNet('b0', frozen_stages=2).train()
    for i, layer in enumerate(network.layers):
        assert layer.training == (i >= 2)
        assert {p.requires_grad for p in layer.parameters()} == {i >= 2}


def test_weights_of_the_classification_zoo_load(efficientnet, tmp_path):
    """By names, some of which are written down here once more."""
    donor = randomize(efficientnet('b0'))
    names = {f'backbone.{k}': v for k, v in donor.state_dict().items()}
    assert {
        'backbone.layers.0.conv.weight',
        'backbone.layers.1.0.depthwise_conv.conv.weight',
        'backbone.layers.1.0.se.conv1.conv.weight',
        'backbone.layers.2.0.expand_conv.bn.running_var',
        'backbone.layers.6.conv.weight',
    } <= set(names)
    path = tmp_path / 'zoo.pth'
    torch.save({'state_dict': {**names, 'head.fc.bias': torch.ones(3)}}, path)
    network = DilatedEfficientNet(
        'b0',
        init_cfg=dict(
            type='Pretrained', prefix='backbone.', checkpoint=str(path)
        ),
    )
    network.init_weights()
    expected = donor.state_dict()  # which has the last layer, too
    assert set(expected) > set(network.state_dict())
    for key, value in network.state_dict().items():
        assert torch.equal(expected[key], value), key


def test_bad_stride_is_explained():
    with pytest.raises(ValueError, match='8, 16 or 32, got 4'):
        DilatedEfficientNet('b0', 4)


def test_missing_mmdetection_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmdet.models.backbones', None)
    name = 'mmdet.models.backbones.efficientnet'
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match='onedl-det'):
        DilatedEfficientNet('b0')
