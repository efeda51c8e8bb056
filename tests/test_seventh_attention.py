# Copyright (c) mmseg_attn contributors.
"""docs/contributing.md adds an attention: built from its text, in a copy."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_registrations import missing

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs/contributing.md'
# What stands in a block, and where: a new file, or a change of one.
BLOCK = re.compile(r'^```(\w+) title="([^"]+)"\n(.*?)^```$', re.M | re.S)
BLOCKS = {
    place: (kind, text)
    for kind, place, text in BLOCK.findall(PAGE.read_text(encoding='utf-8'))
}
COPIED = ('mmseg_attn', 'configs', 'tools', 'tests', 'resources/zoo')
FILES = ('pyproject.toml', 'model-index.yml')
# The tests that know no attention by its name.
TESTS = (
    'tests/test_registrations.py',
    'tests/test_house.py',
    'tests/test_examples.py',
    'tests/test_configs.py',
    'tests/test_ops/test_operators.py',
    'tests/test_layers/test_every_layer.py',
    'tests/test_tools/test_benchmark.py',
)
# It compiles for six sizes; others compile, too.
SLOW = 'compiles_in_one_graph'


def copy_checkout(folder: Path) -> None:
    ignored = shutil.ignore_patterns('__pycache__', 'results')
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in FILES:
        shutil.copy2(ROOT / name, folder / name)


def changed(text: str, change: str) -> str:
    """A text with the lines marked + behind the line that stands before."""
    lines = text.splitlines()
    place = -1
    for line in change.splitlines():
        if line.startswith('+'):
            place += 1
            lines.insert(place, line[1:])
        elif line:
            assert lines.count(line[1:]) == 1, f'not once: {line[1:]}'
            place = lines.index(line[1:])
    return '\n'.join(lines) + '\n'


def build(root: Path, place: str) -> None:
    """Write a block of the page into a checkout."""
    kind, text = BLOCKS[place]
    path = root / place
    if kind == 'diff':
        text = changed(path.read_text(encoding='utf-8'), text)
    else:
        assert not path.exists()
        path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding='utf-8')


def leave_out(root: Path, place: str) -> None:
    """Put a place back to what it is without the page."""
    if (ROOT / place).exists():
        shutil.copy(ROOT / place, root / place)
    else:
        (root / place).unlink()


def run(root: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=root,
        env={**os.environ, 'PYTHONPATH': str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp('seventh')
    copy_checkout(root)
    for place in BLOCKS:
        build(root, place)
    return root


def test_it_takes_at_most_ten_places():
    assert 1 < len(BLOCKS) <= 10
    assert all(
        len(line.removeprefix('+')) <= 79
        for place, (_, text) in BLOCKS.items()
        if place.endswith('.py')
        for line in text.splitlines()
    )


def test_nothing_is_missing(built):
    assert missing(built) == []


@pytest.mark.parametrize('place', BLOCKS)
def test_a_place_left_out_is_named(built, place):
    leave_out(built, place)
    found = missing(built)
    build(built, place)
    assert any(place in sentence for sentence in found), found


@pytest.mark.parametrize(
    'place, old, new, message',
    [
        (
            'mmseg_attn/ops/pooled.py',
            'register(\n',
            'dict(\n',
            r'ops/pooled.py: pooled_attention is not declared: add register',
        ),
        (
            'mmseg_attn/layers/pooled.py',
            '@MODELS.register_module()\n',
            '',
            'names mmseg_attn.PooledAttention, which is not registered',
        ),
        (
            'mmseg_attn/layers/__init__.py',
            'from .pooled import PooledAttention\n',
            '',
            'layers/__init__.py has PooledAttention in __all__: import it',
        ),
        (
            'mmseg_attn/models/decode_heads/__init__.py',
            "    'EAHead',\n",
            '',
            'has EAHead, which .*decode_heads/__init__.py does not export',
        ),
        (
            'configs/pooled/metafile.yaml',
            'AttentionHead',
            'PooledHead',
            'names the head PooledHead, which is not registered',
        ),
        (
            'configs/pooled/metafile.yaml',
            '- Name: Pooled Attention',
            '- Title: Pooled Attention',
            'pooled/metafile.yaml has no Name',
        ),
        (
            'configs/eanet/README.md',
            '(./eanet_r50-d8_4xb4-80k_ade20k-512x512.py)',
            '',
            'eanet/README.md does not link eanet_r50-d8_4xb4-80k_ade20k',
        ),
    ],
)
def test_a_mistake_is_named(built, place, old, new, message):
    path = built / place
    text = path.read_text(encoding='utf-8')
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding='utf-8')
    found = missing(built)
    path.write_text(text, encoding='utf-8')
    assert re.search(message, '\n'.join(found)), found


def test_it_passes_what_every_attention_must(built):
    """Operator, layer, one step of training, benchmark."""
    out = run(
        *(built, '-m', 'pytest', '-q', '-p', 'no:cacheprovider'),
        *('-k', f'pooled and not {SLOW} or registrations or house', *TESTS),
    )
    counts = re.findall(r'(\d+) (passed|failed|error)', out.splitlines()[-1])
    assert [kind for _, kind in counts] == ['passed'], out[-2000:]
    assert int(counts[0][0]) > 80


def test_it_is_listed(built):
    out = run(built, '-m', 'mmseg_attn', 'info', '--operators')
    assert (
        '| `pooled_attention` | [PVT v2](https://arxiv.org/abs/2106.13797) '
        '| 1, 2, 3 | yes |'
    ) in out
    code = 'from mmseg_attn.trials.comparison import methods, title_of; '
    code += 'from mmseg_attn.trials.trial import SCENES; '
    code += 'print(*map(title_of, methods(SCENES)), sep="\\n")'
    names = run(built, '-c', code).splitlines()
    assert names[-1] == 'Pooled Attention'
