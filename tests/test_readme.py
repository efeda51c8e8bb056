# Copyright (c) mmseg_attn contributors.
"""The README is short, its configs build, its figures are measured ones.

That its blocks run is seen in test_docs.py, like those of every page.
"""

import json
import re

import pytest
from code_blocks import ROOT, blocks_of
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from mmseg.models import build_segmentor  # noqa: F401  (registers mmseg's)

README = (ROOT / 'README.md').read_text(encoding='utf-8')
BENCHMARK = (ROOT / 'docs/benchmark.md').read_text(encoding='utf-8')
BLOCKS = [
    block.text
    for page in ('README.md', 'docs/reuse.md')
    for block in blocks_of(ROOT / page)
    if block.language == 'python'
]


def test_is_a_page():
    assert len(README.splitlines()) <= 180


def test_offers_the_short_tests_first():
    """`make test` alone compiles mmcv."""
    assert re.findall(r'^make test.*?(?= +#|$)', README, re.M) == [
        'make test OPS=0'
    ]


def test_heads_build():
    """The heads that are shown can be built from what stands there."""
    heads = 0
    for block in BLOCKS:
        if 'decode_head=' in block:
            scope = {}
            exec(block, scope)  # noqa: S102
            head = scope['model']['decode_head']
            whole = head.pop('_delete_', False)
            narrow = dict(in_channels=64, channels=16, num_classes=3)
            assert not whole or narrow.keys() <= head.keys()
            MODELS.build(ConfigDict({**head, **narrow}))
            heads += 1
    assert heads == 3


@pytest.mark.parametrize('host', ['mmseg', 'mmdet'])
def test_resnet_plugin(host):
    """The backbone that is shown gets a layer in each block of stage 3."""
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


@pytest.mark.parametrize('text', [README, BENCHMARK], ids=['README', 'page'])
def test_times_are_those_of_the_tables(text):
    """Time, ratio and memory of each row, read from the table it links."""
    rows = re.findall(
        r'\| ([^|]+) \| (\d+x\d+x\d+) \| ([\d.]+) ms \| ([^|]+) \| ([\d.]+) x '
        r'\| ([\d.]+) MiB \| ([\d.]+) x \| \[.*?\]\(.*?(tools/.*?)\) \|',
        text,
    )
    assert len(rows) >= 3
    for title, size, ours, peer, time, extra, memory, source in rows:
        # case, BxHxW, contestant, forward, x, total, x, roofline, peak,
        # extra, x
        table = {}
        for line in (ROOT / source).read_text('utf-8').splitlines():
            cells = [cell.strip() for cell in line.split('|')[1:-1]]
            if len(cells) == 11 and cells[1] == size:
                table[cells[0], cells[2]] = cells
        words = re.findall(r'\w+', title)
        (case,) = (
            case
            for case, name in table
            if name == peer and same_case(case, words)
        )
        measured = float(table[case, 'ours'][5].split()[0])
        assert float(ours) == pytest.approx(measured, rel=0.005)
        assert table[case, peer][6] == time
        assert table[case, peer][10] == memory
        measured = float(table[case, 'ours'][9])
        assert float(extra) == pytest.approx(measured, abs=0.5)


def same_case(case, words):
    """Whether a case of the benchmark is what a reader's words call it."""
    case = case.split('_')
    words = [word for word in words if word != 'sparse' or 'sparse' in case]
    return case == words


def test_counted_figures_are_those_of_the_table():
    """Bytes and ratio of the GPU's table, case by case in its order."""
    path = ROOT / 'tools/benchmark/results/counted/after/counted.json'
    found = {}
    for row in json.loads(path.read_text())['rows']:
        shown = row['size'] == '2x97x97' and row['dtype'] == 'bfloat16'
        if shown and 'seconds' in row:
            found.setdefault(row['case'], []).append(row)
    lines = re.findall(
        r'\| (\d+) MB, .* \| (\d+) MB, .* \| (.*) x \|', BENCHMARK
    )
    assert len(lines) == len(found)
    for (ours, its, ratio), (own, *peers) in zip(
        lines, found.values(), strict=True
    ):
        best = min(peers, key=lambda row: row['seconds'])
        assert f'{own["bytes"] / 1e6:.0f}' == ours
        assert f'{best["bytes"] / 1e6:.0f}' == its
        assert f'{best["seconds"] / own["seconds"]:.2f}' == ratio


def test_figures_of_a_gpu_name_it():
    """Card, torch and triton as the tables have them, on both pages."""
    for path in (ROOT / 'tools/benchmark/results/h100').glob('*/*.json'):
        machine = json.loads(path.read_text())['machine']
        assert machine['device'] == 'NVIDIA H100 80GB HBM3'
        assert machine['driver'] in BENCHMARK
        for text in (README, BENCHMARK):
            assert 'H100' in text
            assert f'torch {machine["torch"].partition("+")[0]}' in text
            assert f'Triton {machine["triton"]}' in text
