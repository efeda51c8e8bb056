# Copyright (c) mmseg_attn contributors.
"""The sweep of tiles, in Triton's interpreter, and what runs it on a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('triton', reason='triton is not installed')

from mmseg_attn.ops.kernels import tiles
from mmseg_attn.ops.kernels.tiles import Tile

TOOLS = Path(__file__).resolve().parents[2] / 'tools' / 'benchmark'

if not TOOLS.is_dir():
    pytest.skip('not in a checkout', allow_module_level=True)

# Its modules find each other beside the script.
sys.path.append(str(TOOLS))

SMALL = ['--device', 'cpu', '--channels', '64', '--sizes', '1x2x3']
SMALL += ['--repeat', '2', '--case', 'axial', '--families', 'forward']


def test_neighbours_differ_in_one_thing():
    import sweep

    tile = Tile(64, 32, 512, 8, 1, True)
    found = list(sweep.neighbours(tile))
    assert len(found) == len(set(found)) == 8
    for other in found:
        assert sum(a != b for a, b in zip(tile, other, strict=True)) == 1
    assert Tile(128, 32, 512, 8, 1, True) in found
    assert Tile(64, 32, 512, 4, 1, True) in found
    assert not any(t.C > 512 or t.stages < 1 for t in found)


def test_tiles_are_tried(monkeypatch, tmp_path):
    """The fastest one's neighbours follow; what fails or is wrong is said."""
    import sweep

    seconds = {'64': 2.0, '32': 1.0, '16': 3.0, '128': 4.0}
    failing = Tile(64, 32, 64, 8, 2, True)
    first = Tile(64, 16, 64, 8, 2, True)
    given = []

    def neighbours(tile):
        return [tile._replace(M=32), tile._replace(M=16), failing]

    def measured(tile, family, args, truth):
        given.append(tile)
        if tile == failing:
            return dict(note='too large')
        return {'1x2x3': seconds[str(tile.M)]}

    monkeypatch.setattr(sweep, 'table_tile', lambda *_: first)
    monkeypatch.setattr(sweep, 'neighbours', neighbours)
    monkeypatch.setattr(sweep, 'measured', measured)
    sweep.main([*SMALL, '--out', str(tmp_path)])
    assert len(given) == len(set(given)) == 4
    rows = json.loads((tmp_path / 'sweep.json').read_text())['rows']
    assert [row['tile']['M'] for row in rows] == [64, 32, 16, 64]
    lines = (tmp_path / 'sweep.md').read_text().splitlines()[-4:]
    assert '| 32 16 64 8 2 1 0 | 0.500 |' in lines[0]
    assert '| 64 16 64 8 2 1 0 | 1.000 |' in lines[1]
    assert 'too large' in lines[3]


def test_a_tile_is_compared_before_it_is_timed(monkeypatch):
    import sweep

    args = sweep.parse_args(SMALL)
    (shape,) = args.sizes
    truth = {shape: sweep.ours(shape, args, 'torch').results()}
    tile = sweep.table_tile('forward', args)
    assert sweep.measured(tile, 'forward', args, truth)[shape] > 0
    used = []
    plain = tiles.tile_of
    monkeypatch.setattr(
        tiles, 'tile_of', lambda *a: used.append(plain(*a)) or used[-1]
    )
    other = tile._replace(M=16, N=16, C=32)
    truth[shape][0] = truth[shape][0] + 1
    found = sweep.measured(other, 'forward', args, truth)
    assert 'differs' in found['note']
    assert used and used[0].C == 32


def test_the_script_says_how_it_is_called():
    done = subprocess.run(
        ['bash', str(TOOLS / 'on_gpu.sh'), 'fourth', 'out'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and 'on_gpu.sh first OUT' in done.stderr


def scripted(tmp_path, status, call='first'):
    """Run the script with an interpreter that only logs what it is asked."""
    python = tmp_path / 'python'
    python.write_text(
        '#!/usr/bin/env bash\n'
        f'echo "$*" >> {tmp_path}/asked\n'
        f'[[ $1 == *check.py ]] && exit {status}\n'
        'exit 0\n'
    )
    python.chmod(0o755)
    return subprocess.run(
        ['bash', str(TOOLS / 'on_gpu.sh'), call, str(tmp_path / 'out')],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHON': str(python)},
    )


def test_wrong_results_are_not_timed(tmp_path):
    for status in (1, 4):
        done = scripted(tmp_path, status)
        assert done.returncode == 1 and 'nothing is timed' in done.stdout
    assert 'run.py' not in (tmp_path / 'asked').read_text()


@pytest.mark.parametrize('call, limit', [('first', 480), ('second', 240)])
def test_steps_fit_into_the_call(tmp_path, call, limit):
    done = scripted(tmp_path, 3, call)
    assert done.returncode == 0, done.stderr
    steps = (tmp_path / 'out' / 'steps.log').read_text().splitlines()
    assert sum(int(line.split()[-2]) for line in steps) < limit
    asked = (tmp_path / 'asked').read_text()
    assert ('models.py' in asked) == (call == 'second')
    assert ('sweep.py' in asked) == (call == 'first')
