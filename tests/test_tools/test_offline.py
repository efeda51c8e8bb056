# Copyright (c) mmseg_attn contributors.
"""The kernels compile for cards that are not here, and fit on them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TOOLS = Path(__file__).resolve().parents[2] / 'tools' / 'benchmark'
TABLE = TOOLS / 'results' / 'offline' / 'offline.json'
# Faster than what spills nothing, as timed on an H100.
TIMED = 'sm_90', '64x32x256'
# Get the same code: it is compiled for the first alone.
TWINS = 89, 86
SHAPES = ['criss-cross', 'interlaced', 'deterministic']

triton = pytest.importorskip('triton', reason='triton is not installed')
if not TOOLS.is_dir():
    pytest.skip('not in a checkout', allow_module_level=True)
sys.path.append(str(TOOLS))


@pytest.fixture(scope='module')
def rows(tmp_path_factory):
    """Compiled now; in a process of its own, since here Triton interprets."""
    from offline import CARDS

    out = tmp_path_factory.mktemp('offline')
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != 'TRITON_INTERPRET'
    }
    options = ['--shapes', *SHAPES, '--dtypes', 'bfloat16', 'float32']
    options += ['--cards', *(str(card) for card in CARDS if card != TWINS[1])]
    subprocess.run(
        [sys.executable, TOOLS / 'offline.py', *options, '--out', out],
        check=True,
        env={**environment, 'TRITON_CACHE_DIR': str(out / 'cache')},
        capture_output=True,
    )
    return json.loads((out / 'offline.json').read_text())['rows']


def test_no_kernel_spills_or_takes_more_than_a_card_has(rows):
    from offline import CARDS

    compiled = {f'sm_{card}' for card in CARDS if card != TWINS[1]}
    assert {r['card'] for r in rows} == compiled
    for row in rows:
        timed = (row['card'], row['tile'].partition(' ')[0]) == TIMED
        assert row['spill'] <= (16 if timed else 0), row
        assert row['shared'] <= CARDS[int(row['card'][3:])][0] * 1024, row
        assert row['programs'] > 0, row


def test_the_committed_table_is_true(rows):
    """After a change of kernels or tiles: tools/benchmark/offline.py."""
    committed = json.loads(TABLE.read_text())
    if committed['machine']['triton'] != triton.__version__:
        pytest.skip(f'it is of triton {committed["machine"]["triton"]}')
    missing = [row for row in rows if row not in committed['rows']]
    assert not missing


def test_twins_get_the_same_code(monkeypatch):
    from offline import CARDS

    from mmseg_attn.ops.kernels import tiles

    found = []
    rows = json.loads(TABLE.read_text())['rows']
    for card in TWINS:
        known = card, CARDS[card][0]
        monkeypatch.setattr(tiles, 'card_of', lambda _, known=known: known)
        of_card = [tiles.tile_of(f, None, size, width, 512, 256)
                   for f, size, width in tiles.TABLE]  # fmt: skip
        of_table = [
            {**r, 'card': ''} for r in rows if r['card'] == f'sm_{card}'
        ]
        found.append((CARDS[card], of_card, of_table))
    assert found[0] == found[1]


def test_an_interpreter_compiles_nothing():
    done = subprocess.run(
        [sys.executable, TOOLS / 'offline.py'],
        env={**os.environ, 'TRITON_INTERPRET': '1'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and 'compiles nothing' in done.stderr
