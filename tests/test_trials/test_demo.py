# Copyright (c) mmseg_attn contributors.
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmseg_attn.__main__ import main

ROOT = Path(__file__).parents[2]
REAL = os.environ.get('MMSEG_ATTN_REAL_DATA')


def demo(cwd, *args):
    return subprocess.run(
        [sys.executable, '-m', 'mmseg_attn', 'demo', *map(str, args)],
        cwd=cwd,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )


def check_output(work, groups):
    results = json.loads((work / 'results.json').read_text())
    assert list(results) == ['FCN', 'CCNet R=1', 'CCNet R=2']
    for result in results.values():
        assert set(result['metrics']) >= {'mIoU', 'aAcc', *groups}
        assert all(0 <= v <= 100 for v in result['metrics'].values())
        assert result['seconds'] > 0
        # An interpreter with torch and a picture or two.
        assert 100 < result['peak_memory_mb'] < 8000
    fcn, one, two = (r['parameters'] for r in results.values())
    assert fcn < one == two  # the loops share their weights
    sheet = cv2.imread(str(work / 'sheet.png'))
    assert min(sheet.shape[:2]) > 300
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 100


@pytest.mark.slow
def test_scenes_from_nothing_to_a_sheet(tmp_path):
    done = demo(tmp_path, '--iters', 2, '--device', 'cpu')
    assert done.returncode == 0, done.stderr
    check_output(
        tmp_path / 'work_dirs/demo',
        {'mIoU local', 'mIoU one hop', 'mIoU two hops'},
    )
    for word in ('two hops', 'parameters', 'seconds', 'CCNet R=2', '33.3'):
        assert word in done.stdout
    assert 'work_dirs/demo/sheet.png' in done.stdout
    assert 'CCNet R=2: loss' in done.stderr or 'mIoU' in done.stderr


def test_the_seed_is_handed_on(monkeypatch, capsys):
    given = []

    def run(*args):
        given.append(args)
        return ['a.py', 'b.pth', 'pictures of mine']

    monkeypatch.setattr('mmseg_attn.trials.demo.run_demo', run)
    main(['demo', '--seed', '5', '--work-dir', 'here'])
    assert given[0][1:] == (Path('here'), 5)
    said = capsys.readouterr().out
    assert said.endswith("predict a.py b.pth 'pictures of mine'\n")


@pytest.mark.slow
@pytest.mark.skipif(
    not REAL, reason='needs real pictures: set MMSEG_ATTN_REAL_DATA'
)
def test_real_pictures_from_folders_to_a_sheet(tmp_path):
    data = Path(REAL) / 'horses'
    for kind in ('images', 'masks'):
        for split, number in (('train', 6), ('val', 3)):
            folder = tmp_path / kind / split
            folder.mkdir(parents=True)
            for path in sorted((data / kind / split).iterdir())[:number]:
                (folder / path.name).write_bytes(path.read_bytes())
    before = {p: p.read_bytes() for p in tmp_path.rglob('*.*')}
    work = tmp_path / 'out'
    done = demo(
        tmp_path,
        *('--images', tmp_path / 'images', '--masks', tmp_path / 'masks'),
        *('--work-dir', work, '--iters', 2, '--device', 'cpu'),
    )
    assert done.returncode == 0, done.stderr
    check_output(work, {'mIoU background', 'mIoU foreground'})
    inputs = {p for p in tmp_path.rglob('*.*') if work not in p.parents}
    assert inputs - {work} == set(before)
    assert all(p.read_bytes() == data for p, data in before.items())


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['--images', 'pictures'], 'both --images and --masks'),
        (['--iters', '0'], 'expected at least 1'),
        (['--device', 'gpu'], 'expected cpu, cuda or cuda:N'),
        (['--device', 'cuda:99'], '--device cuda:99: there are'),
        (['--work-dir', 'taken'], 'taken is not empty'),
        (['--work-dir', 'taken/file'], 'cannot write to the work folder'),
        (
            ['--images', '.', '--masks', 'taken'],
            'lies in .*nothing shall be written',
        ),
        (
            ['--images', 'nowhere', '--masks', 'taken', '--work-dir', 'new'],
            'the folder of pictures does not exist: nowhere',
        ),
    ],
)
def test_mistakes_end_as_one_line(tmp_path, monkeypatch, args, message):
    (tmp_path / 'taken').mkdir()
    (tmp_path / 'taken/file').write_text('kept')
    monkeypatch.chdir(tmp_path)
    # SystemExit prints its message as it is and exits with 1.
    with pytest.raises(SystemExit, match=message) as caught:
        main(['demo', *args])
    assert caught.value.code.startswith('Error: ')
    assert (tmp_path / 'taken/file').read_text() == 'kept'
