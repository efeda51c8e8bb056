# Copyright (c) mmseg_attn contributors.
"""Single modules of the authors, taken out of any network."""

import pytest
import torch
from converting import run

from mmseg_attn.layers import EfficientAttention, LinearAttention


def test_another_network_is_refused(tmp_path):
    torch.save({'conv.weight': torch.zeros(1)}, tmp_path / 'theirs.pth')
    for tool in ('isanet', 'caanet'):
        done = run(tool, tmp_path / 'theirs.pth', tmp_path / 'ours.pth')
        assert done.returncode and 'Traceback' not in done.stderr
    assert 'ca_blocks' in done.stderr or '.index' in done.stderr
    assert not (tmp_path / 'ours.pth').exists()


@pytest.mark.parametrize(
    'layer, module, arguments',
    [
        (
            'EfficientAttention',
            EfficientAttention(8, 4, 12, num_heads=2),
            (2,),
        ),
        ('LinearAttention', LinearAttention(16), ()),
    ],
)
def test_modules_are_taken_out(tmp_path, layer, module, arguments):
    weights = {f'net.att.{k}': v for k, v in module.state_dict().items()}
    weights['net.other.weight'] = torch.zeros(1)
    torch.save(weights, tmp_path / 'theirs.pth')
    heads = ['--num-heads', *arguments] if arguments else []
    done = run(
        'attention_module', tmp_path / 'theirs.pth', tmp_path / 'ours.pth',
        layer, '--prefix', 'net.att.', *heads,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'net.other.weight: not below net.att.' in done.stdout
    ours = torch.load(tmp_path / 'ours.pth', weights_only=True)['state_dict']
    module.load_state_dict(ours, strict=True)
    other = {'EfficientAttention', 'LinearAttention'} - {layer}
    done = run(
        'attention_module', tmp_path / 'theirs.pth', tmp_path / 'x.pth',
        *other, '--prefix', 'net.att.',
    )  # fmt: skip
    assert done.returncode and f'not of {other.pop()}' in done.stderr
    assert not (tmp_path / 'x.pth').exists()
