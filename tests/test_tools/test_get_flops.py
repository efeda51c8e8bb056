# Copyright (c) mmseg_attn contributors.
"""tools/analysis_tools/get_flops.py."""

import re
import runpy
import subprocess
import sys

import pytest
from tiny_training import ROOT, tiny_config

TOOL = ROOT / 'tools/analysis_tools/get_flops.py'


@pytest.fixture
def config(tmp_path):
    cfg = tiny_config(tmp_path, tmp_path / 'run')
    cfg.model.backbone = dict(
        type='ResNetV1c',
        depth=50,
        num_stages=1,
        strides=(1,),
        dilations=(1,),
        out_indices=(0,),
        # Of what would have to be fetched, were it not left out.
        pretrained='open-mmlab://nowhere',
    )
    cfg.model.decode_head = dict(
        type='FCNHead',
        num_convs=0,
        in_channels=256,
        in_index=0,
        channels=256,
        concat_input=False,
        num_classes=3,
    )
    cfg.model.auxiliary_head = cfg.model.decode_head
    path = tmp_path / 'mine.py'
    cfg.dump(str(path))
    return path


def call(monkeypatch, *arguments):
    """What the tool's process would end with."""
    monkeypatch.setattr(sys, 'argv', ['get_flops.py', *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(TOOL), run_name='__main__')
    return end.value.code


def rows(text):
    """Part -> (parameters, GFLOPs), from the printed table."""
    cells = re.findall(r'│ (\w+) +│ +([\d,]+) │ +([\d.]+) │', text)
    return {
        part: (int(size.replace(',', '')), float(count))
        for part, size, count in cells
    }


def test_as_a_command(tmp_path):
    """From anywhere, on a config of the package and a size of its own."""
    name = 'ccnet-r2_r18-s4_1xb8-1k_demo-scenes-96x96'
    done = subprocess.run(
        [sys.executable, TOOL, name, '--shape', '64', '48'],
        cwd=tmp_path,
        env={'PYTHONPATH': str(ROOT), 'PATH': '', 'COLUMNS': '80'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f'{name}, a picture of 64 x 48' in done.stdout
    assert 'a\nmultiply-add being 2' in done.stdout
    found = rows(done.stdout)
    # As the table of `make demo` in docs/start.md has it.
    assert found['all'][0] == 60_216
    backbone, head, total = (
        found[k] for k in ('backbone', 'decode_head', 'all')
    )
    assert backbone[0] + head[0] == total[0]
    assert backbone[1] + head[1] == pytest.approx(total[1], abs=0.002)


def test_figures(config, monkeypatch, capsys):
    """Of a classifier of 256 to 3; without the auxiliary head."""
    assert call(monkeypatch, config, '--shape', 400, 400) is None
    found = rows(capsys.readouterr().out)
    assert found['decode_head'] == (
        256 * 3 + 3,
        round(2 * 100 * 100 * 256 * 3 / 1e9, 3),
    )
    assert found['all'][0] == found['backbone'][0] + 256 * 3 + 3
    assert call(monkeypatch, config) is None
    text = capsys.readouterr().out
    assert f'{config}, a picture of 32 x 32' in text
    assert rows(text)['all'][0] == found['all'][0]


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['nothing.py'], 'No config file nothing.py'),
        (['--shape', '0', '32'], 'positive height and width, got 0 and 32'),
        (
            ['--cfg-options', 'model.decode_head.type=FCNHaed'],
            "type='FCNHaed', which nothing provides. Did you mean FCNHead",
        ),
        (
            ['--cfg-options', 'model.decode_head.colour=3'],
            "cannot be built: .*argument 'colour'",
        ),
        (
            ['--cfg-options', 'model.data_preprocessor.size=None'],
            'give --shape HEIGHT WIDTH',
        ),
        (
            ['--cfg-options', 'model.decode_head.in_channels=255',
             'model.decode_head.channels=255'],
            'does not run on a picture of 32 x 32: .*255',
        ),
    ],
)  # fmt: skip
def test_mistakes(config, monkeypatch, arguments, message):
    named = arguments if arguments[0] == 'nothing.py' else [config, *arguments]
    error = call(monkeypatch, *named)
    assert '\n' not in error and re.match(f'Error: .*{message}', error)


def test_bad_shape(config, monkeypatch, capsys):
    assert call(monkeypatch, config, '--shape', '32', 'wide') == 2
    assert "invalid int value: 'wide'" in capsys.readouterr().err
