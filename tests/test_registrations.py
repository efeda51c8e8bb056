# Copyright (c) mmseg_attn contributors.
"""What a new attention must be registered with, each with what to add.

The checks read the files of a checkout and import nothing of it, so that they
also tell what is missing where nothing can be imported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
# Folders of configs without a small one in configs/demo, and why.
WITHOUT_DEMO = {
    'faster_rcnn': 'mask_rcnn has one',
    'manet': 'a whole decoder, as maresunet',
    'maresunet': 'a whole decoder, up to the size of the picture',
}
KINDS = ('scenes', 'pictures')  # of configs that `compare` trains


@cache
def parsed(path: Path, changed: int) -> ast.Module:
    return ast.parse(path.read_text(encoding='utf-8'))


def tree(path: Path) -> ast.Module:
    return parsed(path, path.stat().st_mtime_ns)


def modules(folder: Path) -> list[Path]:
    """Files of a package beside its ``__init__.py``."""
    return [p for p in sorted(folder.glob('*.py')) if p.stem != '__init__']


def packages(root: Path) -> list[Path]:
    """Those whose names are exported one by one."""
    package = root / 'mmseg_attn'
    models = sorted((package / 'models').glob('*/__init__.py'))
    return [
        package / 'ops',
        package / 'layers',
        *(path.parent for path in models),
    ]


def imported(package: Path) -> dict[str, str]:
    """Name -> the module beside ``__init__.py`` that it comes from."""
    return {
        alias.asname or alias.name: node.module
        for node in ast.walk(tree(package / '__init__.py'))
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
        if node.module
    }


def listed(package: Path) -> list[str]:
    """``__all__`` of a package, also where it grows by what is installed."""
    names = []
    for node in ast.walk(tree(package / '__init__.py')):
        if isinstance(node, (ast.Assign, ast.AugAssign)):
            target = getattr(node, 'target', None) or node.targets[0]
            if target.id == '__all__':
                names += ast.literal_eval(node.value)
    return names


def defined(path: Path) -> set[str]:
    """Functions, classes and variables at the top of a module."""
    names = set()
    for node in tree(path).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {t.id for t in node.targets if isinstance(t, ast.Name)}
    return names


def declared(path: Path) -> set[str]:
    """Operators that a module declares by register(function=...)."""
    return {
        keyword.value.id
        for node in tree(path).body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        if getattr(node.value.func, 'id', None) == 'register'
        for keyword in node.value.keywords
        if keyword.arg == 'function'
    }


def registered(path: Path) -> set[str]:
    """What a module has under ``@REGISTRY.register_module(...)``."""
    return {
        node.name
        for node in tree(path).body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef))
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call)
        and getattr(decorator.func, 'attr', None) == 'register_module'
    }


def metafile_of(folder: Path) -> dict:
    """The collection of a method; an empty one if there is no metafile."""
    path = folder / 'metafile.yaml'
    if not path.is_file():
        return {}
    return yaml.safe_load(path.read_text(encoding='utf-8'))['Collections'][0]


def methods(root: Path) -> list[Path]:
    folders = (path for path in (root / 'configs').iterdir() if path.is_dir())
    return sorted(
        f for f in folders if f.name not in ('_base_', 'camvid', 'demo')
    )


def what_is_exported_is_there(root: Path) -> Iterator[str]:
    for package in packages(root):
        init = (package / '__init__.py').relative_to(root)
        found = imported(package)
        for name, module in found.items():
            path = package / f'{module.replace(".", "/")}.py'
            if not path.is_file():
                yield (
                    f'{init} imports {name} from {path.relative_to(root)}, '
                    'which is not there: write it, or export it no more'
                )
            elif name not in defined(path):
                yield (
                    f'{init} imports {name} from {path.relative_to(root)}, '
                    'which defines no such name: define it there'
                )
        for name in {*listed(package)} - {*found}:
            yield f'{init} has {name} in __all__: import it there, too'


def every_operator_is_declared(root: Path) -> Iterator[str]:
    for path in modules(root / 'mmseg_attn/ops'):
        public = {n for n in defined(path) if re.match('[a-z].*_attention', n)}
        for name in public - declared(path) - {'register'}:
            yield (
                f'{path.relative_to(root)}: {name} is not declared: add '
                f'register(function={name}, ...) below it, as '
                'mmseg_attn/ops/declare.py tells'
            )


def what_is_registered_is_exported(root: Path) -> Iterator[str]:
    for package in packages(root):
        init = (package / '__init__.py').relative_to(root)
        exported = {*imported(package)} & {*listed(package)}
        for path in modules(package):
            for name in (registered(path) | declared(path)) - exported:
                yield (
                    f'{path.relative_to(root)} has {name}, which {init} does '
                    f'not export: add "from .{path.stem} import {name}" and '
                    'its name to __all__ there'
                )


def every_type_in_a_config_is_registered(root: Path) -> Iterator[str]:
    known = {
        name
        for path in (root / 'mmseg_attn').rglob('*.py')
        for name in registered(path)
    }
    for path in sorted((root / 'configs').rglob('*.py')):
        named = re.findall(r"'mmseg_attn\.(\w+)'", path.read_text('utf-8'))
        for name in {*named} - known:
            yield (
                f'{path.relative_to(root)} names mmseg_attn.{name}, which is '
                'not registered: write the class under '
                '@MODELS.register_module(), a layer in a file of '
                'mmseg_attn/layers/'
            )
    for folder in methods(root):
        heads = metafile_of(folder).get('Metadata', {}).get('Architecture', [])
        for name in {*heads} - known:
            yield (
                f'{folder.relative_to(root)}/metafile.yaml names the head '
                f'{name}, which is not registered'
            )


def every_operator_is_measured(root: Path) -> Iterator[str]:
    folder = root / 'tools/benchmark'
    named = {
        node.value
        for file in ('cases.py', 'peers.py')
        for node in ast.walk(tree(folder / file))
        if isinstance(node, ast.Constant)
    }
    for path in modules(root / 'mmseg_attn/ops'):
        for name in declared(path) - named:
            yield (
                f'the benchmark does not measure {name}: write what it is '
                'compared with in tools/benchmark/peers.py, under '
                f"@formula('{name}', NAME)"
            )


def every_method_has_its_two_pages(root: Path) -> Iterator[str]:
    index = root / 'model-index.yml'
    known = yaml.safe_load(index.read_text(encoding='utf-8'))['Import']
    for name in known:
        if not (root / name).is_file():
            yield f'model-index.yml names {name}, which is not there: write it'
    for folder in methods(root):
        place = folder.relative_to(root).as_posix()
        if f'{place}/metafile.yaml' not in known:
            yield (
                f'model-index.yml does not name {place}/metafile.yaml: add it '
                'where the method is to stand in tables'
            )
        readme = folder / 'README.md'
        if not readme.is_file():
            yield (
                f'{place}/README.md is not there: write what the method is, '
                'with its paper and a link to each config'
            )
            continue
        text = readme.read_text(encoding='utf-8')
        for config in sorted(folder.glob('*.py')):
            if f'({config.name})' not in text.replace('./', ''):
                yield f'{place}/README.md does not link {config.name}'


def every_metafile_is_whole(root: Path) -> Iterator[str]:
    for folder in methods(root):
        place = folder.relative_to(root).as_posix()
        collection = metafile_of(folder)
        if not collection:
            yield (
                f'{place}/metafile.yaml is not there: name the method (Name), '
                'its Paper and, under Metadata, Architecture, its heads'
            )
            continue
        if collection.get('README') != f'{place}/README.md':
            yield f'{place}/metafile.yaml: README is not {place}/README.md'
        for key, inside in (('Name', None), ('Paper', 'URL')):
            value = collection.get(key) or {}
            if not (value.get(inside) if inside else value):
                yield f'{place}/metafile.yaml has no {inside or key}'


def every_method_has_a_small_config(root: Path) -> Iterator[str]:
    demo = root / 'configs/demo'
    folders = {folder.name for folder in methods(root)}
    shown = set()
    for path in sorted(demo.glob('*.py')):
        method = path.stem.split('_')[0]
        names = {method.replace('-', '_'), method.split('-')[0]} & folders
        shown |= names
        if not names and method != 'fcn':
            yield (
                f'configs/demo/{path.name} is of no method: add '
                f'configs/{method}/README.md and configs/{method}/'
                'metafile.yaml'
            )
        for kind, other in (KINDS, KINDS[::-1]):
            pair = demo.glob(f'{method}_*_demo-{other}-*.py')
            if f'_demo-{kind}-' in path.stem and not [*pair]:
                like = next(demo.glob(f'fcn_*_demo-{other}-*.py')).name
                yield (
                    f'"compare" trains {method} on drawn {kind} alone: add '
                    f'configs/demo/{like.replace("fcn", method, 1)}'
                )
    for name in folders - shown - {*WITHOUT_DEMO}:
        yield (
            f'configs/demo has no small config of {name}: add '
            f'configs/demo/{name}_*_demo-scenes-*.py and its like for '
            'pictures, or say why not in WITHOUT_DEMO of this test'
        )


CHECKS: list[Callable[[Path], Iterator[str]]] = [
    what_is_exported_is_there,
    every_operator_is_declared,
    what_is_registered_is_exported,
    every_type_in_a_config_is_registered,
    every_operator_is_measured,
    every_method_has_its_two_pages,
    every_metafile_is_whole,
    every_method_has_a_small_config,
]


def missing(root: Path) -> list[str]:
    """What is to be added to a checkout, in sentences."""
    return [sentence for check in CHECKS for sentence in check(root)]


@pytest.mark.parametrize('check', CHECKS, ids=lambda check: check.__name__)
def test_registrations(check):
    found = list(check(ROOT))
    assert not found, '\n'.join(found)
