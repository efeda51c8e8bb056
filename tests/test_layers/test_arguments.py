# Copyright (c) mmseg_attn contributors.
"""Arguments with which a layer cannot work are refused when it is made."""

import inspect

import pytest
import torch

from mmseg_attn import layers

LAYERS = {name: getattr(layers, name) for name in layers.__all__}
NO_COUNTS = [0, -1, 1.5, '8', float('nan'), float('inf'), True]
NO_NUMBERS = ['8', float('nan'), float('inf'), -float('inf')]
NO_CONFIGS = [1, 'BN', True, {}, {'eps': 1e-5}]
COUNTS = (
    *('in_channels', 'channels', 'key_channels', 'value_channels'),
    *('out_channels', 'guided_channels', 'reduction', 'num_heads'),
    *(
        'bins',
        'mid_channels',
        'gate_layers',
        'kernel_size',
        'num_convs',
        'pool_stride',
    ),
)
# Beside those: values that are no dicts, flags and choices.
OTHERS = (
    *('backend', 'init_cfg', 'normalization', 'feature_map', 'variant'),
    *(
        'padding',
        'gate',
        'squeeze',
        'interpolation',
        'zero_init',
        'output_norm',
    ),
    *('spatial_dims', 'partition', 'axes', 'spans', 'channel_attention'),
)


def wrong_values(argument):
    if argument in COUNTS:
        return NO_COUNTS
    if argument.endswith('_cfg') and argument != 'init_cfg':
        return NO_CONFIGS
    if argument in ('eps', 'gate_ratio'):
        return [*NO_NUMBERS, -1]
    if argument in ('gamma_init', 'divisor'):
        return NO_NUMBERS
    if argument == 'axis':
        return [2, -1, 0.5, 'h', True]
    assert argument in OTHERS, f'say in this test what {argument} may be'
    return []


@pytest.mark.parametrize('name', LAYERS)
def test_wrong_arguments_are_refused_in_one_line(name):
    layer = LAYERS[name]
    for argument in inspect.signature(layer).parameters:
        for value in wrong_values(argument):
            options = {'in_channels': 16, argument: value}
            if argument == 'divisor':
                options['normalization'] = 'scaling'
            with pytest.raises(ValueError, match=argument) as caught:
                layer(**options)
                pytest.fail(f'{name}({argument}={value!r}) was made')
            assert '\n' not in str(caught.value)
            assert str(value)[:3] in str(caught.value)


@pytest.mark.parametrize('name', LAYERS)
def test_right_arguments_are_not(name):
    x = torch.randn(1, 16, 8, 8)
    parameters = inspect.signature(LAYERS[name]).parameters
    options = {'in_channels': 16, 'eps': 0, 'gamma_init': -1, 'norm_cfg': None}
    options = {k: v for k, v in options.items() if k in parameters}
    assert LAYERS[name](**options).eval()(x).isfinite().all()
