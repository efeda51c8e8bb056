# Copyright (c) mmseg_attn contributors.
"""``info`` and the check of host families, with hosts good, bad and absent."""

import json
import os
import subprocess
import sys
import sysconfig
import warnings
from pathlib import Path

import mmengine
import pytest
import torch

from mmseg_attn import hosts, ops
from mmseg_attn.__main__ import main
from mmseg_attn.apis import info

ROOT = Path(__file__).resolve().parents[2]


def add_distribution(folder, name, version):
    """Make importlib.metadata see a distribution in a folder."""
    meta = folder / f'{name.replace("-", "_")}-{version}.dist-info'
    meta.mkdir(parents=True)
    (meta / 'METADATA').write_text(
        f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'
    )


@pytest.fixture
def hosts_folder(tmp_path, monkeypatch):
    """A folder, first on the path, that other distributions can be put in."""
    monkeypatch.syspath_prepend(tmp_path)
    hosts.warn_if_mixed.cache_clear()
    yield tmp_path
    hosts.warn_if_mixed.cache_clear()


def test_text(capsys):
    assert not main(['info'])
    text = capsys.readouterr().out
    assert text.endswith('Next: python -m mmseg_attn demo\n')
    assert torch.__version__ in text
    for operator, backends in ops.backends().items():
        assert operator in text
        for name, reason in backends.items():
            assert f'{name:<10} ' + (reason or 'runs') in text.replace(
                'no: ', ''
            )


def test_json(capsys):
    main(['info', '--json'])
    report = json.loads(capsys.readouterr().out)
    assert report['torch']['version'] == torch.__version__
    assert report['torch']['cuda'] == torch.version.cuda
    assert mmengine.__version__ in report['hosts']['distributions'].values()
    assert report['hosts']['warning'] is None
    assert not any(report['hosts']['modules'].values())
    assert report['backends'] == ops.backends()


def test_one_form_at_a_time(capsys):
    with pytest.raises(SystemExit):
        main(['info', '--json', '--operators'])
    assert 'not allowed with argument --json' in capsys.readouterr().err


def test_both_families(hosts_folder):
    """Both families: info says so and says what to run."""
    family = 'original' if hosts.installed(hosts.ORIGINAL) else 'onedl'
    other = 'onedl-mmcv' if family == 'original' else 'mmcv'
    assert info.collect_info()['hosts']['family'] == family
    add_distribution(hosts_folder, other, '9.9.9')
    report = info.collect_info()
    assert report['hosts']['family'] == 'original and onedl'
    assert report['hosts']['distributions'][other] == '9.9.9'
    text = info.as_text(report)
    assert 'WARNING: Both families' in text
    assert 'pip uninstall -y' in text and f' {other}' in text


def test_warned_once(hosts_folder):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        hosts.warn_if_mixed()
    hosts.warn_if_mixed.cache_clear()
    add_distribution(hosts_folder, 'onedl-mmcv', '9.9.9')
    add_distribution(hosts_folder, 'mmcv', '9.9.9')
    with pytest.warns(UserWarning, match='Both families'):
        hosts.warn_if_mixed()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        hosts.warn_if_mixed()


def test_compiled_ops(monkeypatch):
    """Absent and unusable operators are told apart."""
    for error, expected in (
        ("ModuleNotFoundError: No module named 'mmcv._ext'", 'no: '),
        ('ImportError: undefined symbol: _ZN3c10', 'broken: '),
    ):
        monkeypatch.setattr(info, '_try_import', lambda _, e=error: (None, e))
        assert info._compiled_ops({'mmcv': None}).startswith(expected)
    assert info._compiled_ops({'mmcv': 'ImportError'}) == 'no usable mmcv'


def run_isolated(tmp_path, *extra):
    """Run info without site-packages: torch's own needs are linked in."""
    packages = Path(sysconfig.get_path('purelib'))
    bare = tmp_path / 'bare'
    bare.mkdir()
    hidden = ('mm', 'onedl')
    for entry in packages.iterdir():
        if not entry.name.startswith(hidden) and entry.suffix != '.pth':
            (bare / entry.name).symlink_to(entry)
    done = subprocess.run(
        [sys.executable, '-S', '-m', 'mmseg_attn', 'info', '--json'],
        env=os.environ
        | {'PYTHONPATH': os.pathsep.join(map(str, (*extra, ROOT, bare)))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_without_hosts(tmp_path):
    """With torch and no OpenMMLab package info still reports."""
    report = run_isolated(tmp_path)
    assert report['hosts']['family'].startswith('none')
    assert report['torch']['version'] == torch.__version__
    assert report['backends'] == ops.backends()


def test_broken_host(tmp_path):
    """A host that raises while it is imported becomes part of the report."""
    broken = tmp_path / 'broken'
    (broken / 'mmcv').mkdir(parents=True)
    (broken / 'mmcv/__init__.py').write_text(
        'print("noise")\nraise AssertionError("MMCV is\\n incompatible")\n'
    )
    add_distribution(broken, 'mmcv', '1.0')
    report = run_isolated(tmp_path, broken)
    assert report['hosts']['family'] == 'original'
    error = report['hosts']['modules']['mmcv']
    assert error == 'AssertionError: MMCV is incompatible'
    assert error in info.as_text(report)


def test_operator_table(capsys):
    assert not main(['info', '--operators'])
    table = capsys.readouterr().out.strip()
    for name in ops.backends():
        assert f'| `{name}` |' in table
    page = (ROOT / 'docs/operators.md').read_text(encoding='utf-8')
    assert table in page, 'run docs/generate.py'


def test_benchmark_table(capsys):
    assert not main(['info', '--configs'])
    table = capsys.readouterr().out.strip()
    both = 'R-50, R-101'
    sixty = (
        f'| PASCAL Context, 60 classes |  |  | {both}, EfficientNet-B7 |  |'
    )
    assert sixty in table
    modern = f'{both}, HRNet-W48, Swin-T, ConvNeXt-T'
    assert f'| {modern} |' in table
    page = (ROOT / 'docs/model_zoo.md').read_text(encoding='utf-8')
    assert table.replace('](configs', '](../configs') in page
