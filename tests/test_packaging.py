# Copyright (c) mmseg_attn contributors.
"""The wheel and the source archive hold what mim needs and nothing else."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import mmseg_attn

ROOT = Path(__file__).resolve().parents[1]
ADDRESS = 'https://example.org/releases'


def tracked_like(folder):
    """The files of a folder that belong to the project."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    """A copy of the sources."""
    tree = tmp_path_factory.mktemp('tree') / 'project'
    tree.mkdir()
    for path in ROOT.iterdir():
        if path.name in {
            *('mmseg_attn', 'configs', 'tools', 'tests', 'requirements'),
            *('setup.py', 'pyproject.toml', 'MANIFEST.in', 'Makefile'),
            *('README.md', 'LICENSE', 'model-index.yml', 'resources'),
        }:
            if path.is_dir():
                shutil.copytree(path, tree / path.name)
            else:
                shutil.copy2(path, tree / path.name)
    return tree


def build(tree, out, kind, **env):
    """Build with setuptools' PEP 517 hook; return what it built."""
    pytest.importorskip('setuptools', '77', reason='setuptools>=77 needed')
    out.mkdir(parents=True)
    done = subprocess.run(
        [
            *(sys.executable, '-c'),
            'import sys; from setuptools import build_meta as b; '
            f'getattr(b, "build_{kind}")(sys.argv[1])',
            str(out),
        ],
        cwd=tree,
        env=os.environ | env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return next(out.iterdir())


@pytest.fixture(scope='module')
def sdist(tree):
    return build(tree, tree.parent / 'sdist', 'sdist')


@pytest.fixture(scope='module')
def wheel(sdist):
    """The wheel built from the source archive, as pip does it."""
    with tarfile.open(sdist) as archive:
        archive.extractall(sdist.parent.parent / 'unpacked', filter='data')
    (source,) = (sdist.parent.parent / 'unpacked').iterdir()
    out = sdist.parent.parent / 'wheel'
    return build(source, out, 'wheel', MMSEG_ATTN_ZOO_URL=ADDRESS)


def names(wheel):
    return set(zipfile.ZipFile(wheel).namelist())


def test_wheel_content(wheel):
    found = names(wheel)
    top = {name.split('/')[0] for name in found}
    version = mmseg_attn.__version__
    assert top == {
        'mmseg_attn',
        '_mmseg_attn_mim',
        f'mmseg_attn-{version}.dist-info',
    }
    for folder in ('mmseg_attn/.mim', '_mmseg_attn_mim/.mim'):
        held = {
            name.removeprefix(f'{folder}/')
            for name in found
            if name.startswith(folder)
        }
        weights = {
            name
            for name in tracked_like('resources/zoo')
            if name.endswith('.pth') and folder.startswith('mmseg_attn/')
        }
        assert held == {
            *('model-index.yml', 'resources/zoo/metafile.yaml'),
            *tracked_like('configs'),
            *(n for n in tracked_like('tools') if '/results/' not in n),
            *weights,
        }
    code = {name for name in found if name.startswith('mmseg_attn/')}
    assert tracked_like('mmseg_attn') <= code
    assert 'mmseg_attn/py.typed' in code  # else type checkers see nothing


def test_weights_have_the_address_that_was_given(wheel):
    """In the wheel alone, for both mims; the names of files stay."""
    archive = zipfile.ZipFile(wheel)
    place = 'resources/zoo/metafile.yaml'
    source = yaml.safe_load((ROOT / place).read_text())['Models']
    for folder in ('mmseg_attn', '_mmseg_attn_mim'):
        text = archive.read(f'{folder}/.mim/{place}').decode()
        models = yaml.safe_load(text)['Models']
        assert [model['Weights'] for model in models] == [
            model['Weights'].replace('resources/zoo', ADDRESS)
            for model in source
        ]
        for model, other in zip(models, source, strict=True):
            assert {**model, 'Weights': ''} == {**other, 'Weights': ''}


def test_first_file_leads_to_mim(wheel):
    """onedl-mim takes the folder of the first file in the sorted record."""
    assert sorted(names(wheel))[0].startswith('_mmseg_attn_mim/.mim/')


def test_no_scripts_no_second_module(wheel):
    """Either would hide the package from a mim."""
    info = f'mmseg_attn-{mmseg_attn.__version__}.dist-info'
    archive = zipfile.ZipFile(wheel)
    assert f'{info}/entry_points.txt' not in archive.namelist()
    top_level = archive.read(f'{info}/top_level.txt').decode().split()
    assert top_level == ['mmseg_attn']


def test_metadata(wheel):
    info = f'mmseg_attn-{mmseg_attn.__version__}.dist-info'
    metadata = zipfile.ZipFile(wheel).read(f'{info}/METADATA').decode()
    needed = [
        line.removeprefix('Requires-Dist: ')
        for line in metadata.splitlines()
        if line.startswith('Requires-Dist: ') and 'extra ==' not in line
    ]
    assert needed == ['torch>=2.4']
    for extra in ('onedl', 'onedl-det', 'openmmlab', 'openmmlab-det'):
        assert f'Provides-Extra: {extra}\n' in metadata
    assert 'License-Expression: Apache-2.0\n' in metadata


def test_nothing_left_in_the_tree(tree, wheel):
    """No build folder and no .mim: onedl-mim would find configs twice."""
    assert not list(tree.rglob('.mim'))
    assert not (tree / 'build').exists()


def test_model_index():
    """mim reads the metafiles that the index names, and no others exist."""
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    found = [*(ROOT / 'configs').rglob('metafile.y*ml')]
    found += (ROOT / 'resources').rglob('metafile.y*ml')
    assert sorted(index['Import']) == sorted(
        path.relative_to(ROOT).as_posix() for path in found
    )


def test_constraints_meet_the_extras():
    """The versions that CI runs are those the extras allow."""
    tomllib = pytest.importorskip('tomllib')  # Python 3.11
    requirements = pytest.importorskip('packaging.requirements')
    pins = dict(
        line.split('==')
        for line in (ROOT / 'requirements/constraints.txt')
        .read_text()
        .splitlines()
        if '==' in line
    )
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    extras = project['optional-dependencies']
    lines = [*project['dependencies'], *extras['onedl'], *extras['onedl-det']]
    for line in lines:
        requirement = requirements.Requirement(line)
        assert requirement.specifier.contains(pins[requirement.name]), line
