# Copyright (c) mmseg_attn contributors.
"""State dicts of the authors' modules load, and give the authors' outputs.

Criss-cross and interlaced attention have files of their own.
"""

import pytest
import torch

from mmseg_attn.layers import (
    ChannelizedAxialAttention,
    ChannelLinearAttention,
    EfficientAttention,
    LinearAttention,
)

LAYERS = {
    'ea_32_k16_h1_v16_9x13': lambda: EfficientAttention(32, 16, 16),
    'ea_32_k16_h4_v24_7x6': lambda: EfficientAttention(
        32, 16, 24, num_heads=4
    ),
    'lam_position_32_9x9': lambda: LinearAttention(32),
    'lam_channel_32_9x9': lambda: ChannelLinearAttention(),
}


def close(got, expected, atol=1e-9):
    torch.testing.assert_close(got, expected, rtol=0, atol=atol)


@pytest.mark.parametrize('name', LAYERS)
def test_equals_the_authors_module(golden, name):
    data = golden(name)
    layer = LAYERS[name]().double()
    weights = {k[2:]: v for k, v in data.items() if k.startswith('p.')}
    layer.load_state_dict(weights)
    x = data['x'].requires_grad_()
    y = layer(x)
    (y * data['w']).sum().backward()
    close(y, data['y'])
    close(x.grad, data['gx'])
    for key, parameter in layer.named_parameters():
        close(parameter.grad, data[f'g.{key}'])


def caa_weights(data):
    """The authors' TensorFlow variables by our names, in torch's layout."""
    ours = {}
    for name, value in data.items():
        if not name.startswith('p') or '/' not in name:
            continue
        part, variable, leaf = name.removesuffix(':0').split('/')[1:]
        if part.endswith('attention'):
            number = variable.removeprefix('dense').removeprefix('_')
            dense = 'dense_end' if number == 'end' else f'denses.{number}'
            ours[f'{part}.{dense}.weight'] = value.T
            continue
        module = 'conv' if variable.endswith('_conv') else 'bn'
        leaf = {
            'kernel': 'weight',
            'gamma': 'weight',
            'beta': 'bias',
            'moving_mean': 'running_mean',
            'moving_variance': 'running_var',
        }[leaf]
        value = value.permute(3, 2, 0, 1) if value.ndim == 4 else value
        ours[f'{part}bnrelu.{module}.{leaf}'] = value
    return ours


def test_equals_the_authors_channelized_axial_block(golden):
    data = golden('caa_axialblock_9x13')
    norm = dict(type='BN', eps=1e-3)
    layer = ChannelizedAxialAttention(32, 16, 8, norm_cfg=norm)
    missing, unexpected = layer.load_state_dict(
        caa_weights(data), strict=False
    )
    assert not unexpected
    assert all(key.endswith('num_batches_tracked') for key in missing)
    layer.eval()
    x = data['x'].movedim(-1, 1).requires_grad_()
    y = layer(x)
    (y * data['w'].movedim(-1, 1)).sum().backward()
    close(y, data['y'].movedim(-1, 1), 1e-5)
    close(x.grad, data['gx'].movedim(-1, 1), 1e-5)


@pytest.mark.parametrize(
    'layer, count',
    [
        # Specs of the modules: figures derived from the official code.
        (lambda: EfficientAttention(256, 128, 256), 197_376),
        (lambda: EfficientAttention(2048, 1024, 2048), 12_589_056),
        (lambda: LinearAttention(64), 5_201),
        (lambda: ChannelLinearAttention(), 1),
        (
            lambda: ChannelizedAxialAttention(512).v_c_attention,
            196_608,
        ),
    ],
)
def test_parameter_counts(layer, count):
    assert sum(p.numel() for p in layer().parameters()) == count
