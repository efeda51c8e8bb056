# Copyright (c) mmseg_attn contributors.
"""README and docs/: what they name exists, what they show runs."""

import functools
import importlib.util
import json
import os
import re
import shutil
from pathlib import Path

import code_blocks
import pytest
import yaml
from code_blocks import ROOT, blocks_of, commands_in
from mmengine.registry import STRATEGIES
from mmseg.datasets import BaseSegDataset  # noqa: F401  (registers mmseg's)
from mmseg.models import build_segmentor  # noqa: F401  (the same)
from mmseg.registry import DATASETS, MODELS, TRANSFORMS

import mmseg_attn
from mmseg_attn.__main__ import COMMANDS

PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md']
PAGES += sorted((ROOT / 'docs').rglob('*.md'))
REGISTRIES = (MODELS, DATASETS, TRANSFORMS, STRATEGIES)
METHODS = sorted((ROOT / 'configs').glob('*/README.md'))
CONFIG = 'ccnet-r2_r18-s4_1xb8-1k_demo-scenes-96x96.py'
EACH = pytest.mark.parametrize(
    'page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix()
)


@functools.cache
def generator():
    spec = importlib.util.spec_from_file_location(
        'generate', ROOT / 'docs/generate.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A checkout's tools and configs, drawn scenes, a model of 4 steps."""
    folder = tmp_path_factory.mktemp('trained')
    before = Path.cwd()
    os.chdir(folder)
    try:
        for name in ('tools', 'configs'):
            Path(name).symlink_to(ROOT / name)
        for words in (
            ['python', '-m', 'mmseg_attn', 'scenes', 'data/scenes'],
            ['mim', 'train', 'mmseg_attn', CONFIG, '--work-dir', 'work'],
        ):
            code_blocks.run(words, set())
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """A copy of it, to work in."""
    folder = tmp_path / 'folder'
    shutil.copytree(trained, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


def types_in(value):
    """All values of keys ``type`` in nested dicts."""
    if isinstance(value, dict):
        found = {value['type']} if 'type' in value else set()
        return found.union(*map(types_in, value.values()))
    if isinstance(value, (list, tuple)):
        return set().union(*map(types_in, value))
    return set()


@EACH
def test_blocks_run(page, folder):
    """In the order of the page; Python goes on where a block before ended."""
    blocks = blocks_of(page)
    scope = {'__name__': 'page'}
    given = {'work', 'data/scenes'}  # a reader may not have them yet
    for block in blocks:
        if block.reason or block.title:
            continue
        if block.language == 'python':
            code_blocks.execute(block, scope)
        elif block.language == 'shell':
            for words in commands_in(block.text):
                code_blocks.run(words, given)
    scope.pop('__builtins__', None)
    for value in scope.values():
        for name in types_in(value) if isinstance(value, (dict, list)) else ():
            assert any(r.get(name) for r in REGISTRIES), (
                f'{page}: {name} is registered nowhere'
            )


@EACH
def test_what_is_not_run_parses(page, folder, monkeypatch):
    marked = [block for block in blocks_of(page) if block.reason]
    for block in marked:
        assert block.language == 'shell', f'{block.place}: Python can be run'
        assert len(block.reason.split()) > 1, block.place
        for words in commands_in(block.text):
            code_blocks.parse(words, monkeypatch)
    for block in marked:  # seen with -rP
        print(f'{block.place} is parsed, not run: {block.reason}')


@pytest.mark.parametrize('page', METHODS, ids=lambda page: page.parent.name)
def test_commands_of_methods_parse(page, folder, monkeypatch):
    for block in blocks_of(page):
        if block.language == 'shell':
            for words in commands_in(block.text):
                code_blocks.parse(words, monkeypatch)


@EACH
def test_blocks_have_a_known_language(page):
    fences = re.findall(r'^ *```(.*)$', page.read_text('utf-8'), re.M)
    assert len(fences) == 2 * len(blocks_of(page)), 'a fence is not seen'
    for block in blocks_of(page):
        if block.title:  # test_seventh_attention.py makes files of them
            assert page.name == 'contributing.md', block.place
        else:  # what is run or parsed, and what nobody would run
            assert block.language in ('python', 'shell', 'text', 'diff'), (
                block.place
            )


@EACH
def test_generated_parts_are_current(page):
    """`python docs/generate.py` writes them."""
    assert generator().current(page) == page.read_text('utf-8')


def test_notebook_is_the_page():
    """Its cells are the page's blocks, which test_blocks_run runs."""
    page = ROOT / 'docs/tutorial.md'
    text = page.with_suffix('.ipynb').read_text('utf-8')
    assert generator().notebook(page.read_text('utf-8')) == text
    cells = [
        ''.join(cell['source'])
        for cell in json.loads(text)['cells']
        if cell['cell_type'] == 'code'
    ]
    blocks = blocks_of(page)
    assert len(cells) == len(blocks)
    for cell, block in zip(cells, blocks, strict=True):
        if block.language == 'python':
            assert cell == block.text.strip()
        else:
            commands = cell.removeprefix('!').split('\n!')
            assert commands_in('\n'.join(commands)) == commands_in(block.text)


def test_generated_parts_are_written(tmp_path, monkeypatch):
    """Into the README and pages of docs/ at any depth, nothing else."""
    pages = [tmp_path / 'README.md', tmp_path / 'docs/api/deep.md']
    pages[1].parent.mkdir(parents=True)
    pages[0].write_text('as it is\n')
    marks = '<!-- begin operators -->\nold\n<!-- end operators -->\n'
    pages[1].write_text(f'before\n{marks}')
    monkeypatch.setattr(generator(), 'ROOT', tmp_path)
    generator().main()
    assert pages[0].read_text() == 'as it is\n'
    written = pages[1].read_text()
    assert written.startswith('before\n<!-- begin operators -->\n')
    assert '`axial_attention`' in written and 'old' not in written


def test_every_generated_part_is_on_a_page():
    text = '\n'.join(page.read_text('utf-8') for page in PAGES)
    for maker in generator().TEXTS:
        assert f'<!-- begin {maker.__name__}' in text, maker.__name__


@EACH
def test_links_lead_somewhere(page):
    text = re.sub(r'```.*?```', '', page.read_text('utf-8'), flags=re.S)
    for link in re.findall(r'\]\(([^)]+)\)', text):
        path = link.partition('#')[0]
        if not link.startswith('https://') and path:
            assert (page.parent / path).exists(), link


def test_named_commands_and_configs_exist():
    text = '\n'.join(page.read_text('utf-8') for page in PAGES)
    named = set(re.findall(r'python -m mmseg_attn`? ?`?([a-z]+)', text))
    assert named == set(COMMANDS), 'each command is on a page, and no other'
    configs = {path.stem for path in (ROOT / 'configs').rglob('*.py')}
    for page in PAGES:  # and those that the page makes
        configs.update(Path(block.title).stem for block in blocks_of(page))
    ours = re.sub(r'https?://\S+', '', text)  # checkpoints of others
    named = re.findall(r'\b[a-z][\w-]*_\dxb[\w-]+', ours)
    assert named and set(named) <= configs
    makefile = (ROOT / 'Makefile').read_text()
    targets = re.findall(r'^make (\w+)|`make (\w+)', text, re.M)
    for target in {''.join(found) for found in targets}:
        assert f'\n{target}:' in makefile, target


def test_every_public_name_is_in_the_reference():
    """Of the interface; the other pages are generated from the modules."""
    text = (ROOT / 'docs/api/index.md').read_text('utf-8')
    for name in mmseg_attn.apis.__all__:
        assert re.search(rf'^::: [\w.]+\.{name}$', text, re.M), name


def test_versions_agree():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['version'] == mmseg_attn.__version__
    changes = (ROOT / 'CHANGELOG.md').read_text('utf-8')
    titles = re.findall(r'^## (.*)$', changes, re.M)
    assert titles[0] == 'Unreleased' and titles[-1].startswith('0.1.0 - ')
    kinds = set(re.findall(r'^### (.*)$', changes, re.M))
    assert kinds <= {
        *('Added', 'Changed', 'Deprecated', 'Removed', 'Fixed', 'Security')
    }


def test_hooks_and_workflow_are_those_of_make():
    pinned = re.search(
        r'^ruff==.*$',
        (ROOT / 'requirements/constraints.txt').read_text(),
        re.M,
    )[0]
    (repository,) = yaml.safe_load(
        (ROOT / '.pre-commit-config.yaml').read_text()
    )['repos']
    for hook in repository['hooks']:
        assert hook['additional_dependencies'] == [pinned]
    workflow = yaml.safe_load((ROOT / '.github/workflows/ci.yml').read_text())
    steps = workflow['jobs']['all']['steps']
    assert any(step.get('run') == 'bash .ci/run' for step in steps)
    ci = (ROOT / '.ci/run').read_text()
    assert '\nmake docs\n' in ci and '\nmake lint\n' in ci


def test_a_report_of_a_bug_asks_for_info():
    for path in (ROOT / '.github/ISSUE_TEMPLATE').glob('*.yml'):
        yaml.safe_load(path.read_text())
    bug = yaml.safe_load((ROOT / '.github/ISSUE_TEMPLATE/bug.yml').read_text())
    (info,) = (part for part in bug['body'] if part['id'] == 'info')
    assert 'python -m mmseg_attn info' in info['attributes']['label']
    assert info['validations']['required']
