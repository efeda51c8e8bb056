# Copyright (c) mmseg_attn contributors.
"""What the README names exists, and its Python runs."""

import json
import re
from pathlib import Path

import pytest
from mmengine.config import ConfigDict
from mmengine.registry import DATASETS, MODELS
from mmseg.models import build_segmentor  # noqa: F401  (registers mmseg's)

from mmseg_attn.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / 'README.md').read_text(encoding='utf-8')
BLOCKS = re.findall(r'```python\n(.*?)```', README, re.DOTALL)


def types_in(value):
    """All values of keys ``type`` in nested dicts."""
    if isinstance(value, dict):
        found = {value['type']} if 'type' in value else set()
        return found.union(*map(types_in, value.values()))
    if isinstance(value, (list, tuple)):
        return set().union(*map(types_in, value))
    return set()


@pytest.mark.parametrize('block', BLOCKS)
def test_python(block):
    """Each block runs; what it calls by type is registered."""
    scope = {}
    exec(block, scope)  # noqa: S102
    del scope['__builtins__']
    for name in types_in(scope):
        assert MODELS.get(name) or DATASETS.get(name), name
    if 'out' in scope:
        assert str(tuple(scope['out'].shape)) in block


def test_heads_build():
    """The two heads of the README can be built from what stands there."""
    heads = 0
    for block in BLOCKS:
        scope = {}
        exec(block, scope)  # noqa: S102
        head = scope.get('model', {}).get('decode_head')
        if head:
            MODELS.build(
                ConfigDict(head, in_channels=64, channels=16, num_classes=3)
            )
            heads += 1
    assert heads == 2


@pytest.mark.parametrize('host', ['mmseg', 'mmdet'])
def test_resnet_plugin(host):
    """The backbone of the README gets a layer in each block of stage 3."""
    (plugins,) = (block for block in BLOCKS if 'plugins=' in block)
    scope = {}
    exec(plugins, scope)  # noqa: S102
    if host == 'mmdet':
        pytest.importorskip('mmcv._ext', reason='mmdet needs mmcv.ops')
    backbone = MODELS.build(
        dict(type=f'{host}.ResNet', depth=50, **scope['model']['backbone'])
    )
    layers = [
        name
        for name, module in backbone.named_modules()
        if type(module).__name__ == 'CrissCrossAttention'
    ]
    assert len(layers) == 6
    assert all(name.startswith('layer3.') for name in layers)


def test_named_configs_exist():
    configs = {path.stem for path in (ROOT / 'configs').rglob('*.py')}
    named = re.findall(r'\b[a-z][\w-]*_\dxb[\w-]+', README)
    assert named and set(named) <= configs


def test_named_commands_exist():
    named = set(re.findall(r'python -m mmseg_attn`? ?`?(\w+)', README))
    assert named and named <= set(COMMANDS)
    makefile = (ROOT / 'Makefile').read_text()
    for target in re.findall(r'^make (\w+)|`make (\w+)', README, re.M):
        target = ''.join(target)
        assert f'\n{target}:' in makefile


def test_links_lead_somewhere():
    links = re.findall(r'\]\(([^)]+)\)', README)
    for link in links:
        assert link.startswith('https://') or (ROOT / link).exists(), link


def test_counted_figures_are_those_of_the_table():
    """Bytes and ratio of the GPU's table, case by case in its order."""
    path = ROOT / 'tools/benchmark/results/counted/after/counted.json'
    found = {}
    for row in json.loads(path.read_text())['rows']:
        shown = row['size'] == '2x97x97' and row['dtype'] == 'bfloat16'
        if shown and 'seconds' in row:
            found.setdefault(row['case'], []).append(row)
    lines = re.findall(r'\| (\d+) MB, .* \| (\d+) MB, .* \| (.*) x \|', README)
    assert len(lines) == len(found)
    for (ours, its, ratio), (own, *peers) in zip(
        lines, found.values(), strict=True
    ):
        best = min(peers, key=lambda row: row['seconds'])
        assert f'{own["bytes"] / 1e6:.0f}' == ours
        assert f'{best["bytes"] / 1e6:.0f}' == its
        assert f'{best["seconds"] / own["seconds"]:.2f}' == ratio
