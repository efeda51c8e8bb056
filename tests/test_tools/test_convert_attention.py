# Copyright (c) mmseg_attn contributors.
"""Single modules of the authors, taken out of any network."""

import pytest
import torch
from converting import converter, run

from mmseg_attn.errors import UserError
from mmseg_attn.layers import (
    ChannelLinearAttention,
    EfficientAttention,
    LinearAttention,
)

MODULES = [
    (EfficientAttention(8, 4, 12, num_heads=2), dict(num_heads=2)),
    (LinearAttention(16), dict(feature_map='taylor')),
    (
        LinearAttention(16, feature_map='softplus'),
        dict(feature_map='softplus'),
    ),
    (ChannelLinearAttention(), dict()),
]


def test_another_network_is_refused(tmp_path):
    torch.save({'conv.weight': torch.zeros(1)}, tmp_path / 'theirs.pth')
    done = run('isanet', tmp_path / 'theirs.pth', tmp_path / 'ours.pth')
    assert done.returncode and 'Traceback' not in done.stderr
    assert 'is it ISANet' in done.stderr
    assert not (tmp_path / 'ours.pth').exists()
    for tool in ('caanet', 'maresunet'):
        with pytest.raises(UserError, match='is it '):
            converter(tool)({'conv.weight': torch.zeros(1)})


@pytest.mark.parametrize('module, options', MODULES)
def test_modules_are_taken_out(module, options):
    weights = {f'net.att.{k}': v for k, v in module.state_dict().items()}
    weights['net.other.weight'] = torch.zeros(1)
    layer = type(module).__name__
    convert = converter('attention_module')
    ours, report = convert(weights, layer, 'net.att.', **options)
    assert report.left_out == {'net.other.weight': 'not below net.att.'}
    assert report.compared < 1e-12
    module.load_state_dict(ours, strict=True)
    for key, value in options.items():
        assert f'{key}={value!r}' in str(report)
    for other in {'EfficientAttention', 'LinearAttention'} - {layer}:
        asked = dict(num_heads=2, feature_map='taylor')
        with pytest.raises(UserError, match=f'not of {other}'):
            convert(weights, other, 'net.att.', **asked)


@pytest.mark.parametrize('meant, built', [(0, 1), (1, 0)])
def test_another_feature_map_is_seen_with_a_gain_of_0(meant, built):
    """As an untrained module has it, whose output is its input."""
    maps = 'taylor', 'softplus'
    module = LinearAttention(16)
    assert module.gamma == 0
    convert = converter('attention_module')
    build = convert.__globals__['build']
    convert.__globals__['build'] = lambda weights, layer, options: build(
        weights, layer, dict(feature_map=maps[built])
    )
    with pytest.raises(UserError, match="do not give the authors' output"):
        convert(
            module.state_dict(), 'LinearAttention', feature_map=maps[meant]
        )


@pytest.mark.parametrize(
    'layer, option',
    [
        ('EfficientAttention', '--num-heads'),
        ('LinearAttention', '--feature-map'),
    ],
)
def test_what_weights_do_not_tell_is_asked_for(layer, option):
    with pytest.raises(UserError, match=f'needs {option}'):
        converter('attention_module')({}, layer)


def test_a_file_becomes_a_checkpoint(tmp_path):
    module, _ = MODULES[2]
    torch.save(module.state_dict(), tmp_path / 'theirs.pth')
    done = run(
        'attention_module', tmp_path / 'theirs.pth', tmp_path / 'ours.pth',
        'LinearAttention', '--feature-map', 'softplus',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "feature_map='softplus'" in done.stdout
    ours = torch.load(tmp_path / 'ours.pth', weights_only=True)['state_dict']
    assert set(ours) == set(module.state_dict())
