# Copyright (c) mmseg_attn contributors.
"""The order of the house: who imports whom, and one dialect of docstrings.

All is read from the sources; nothing of the package is imported. Each
failure says where, and what to do.
"""

import ast
import re
import sys

import pytest
from house import (
    PACKAGE,
    all_imports,
    entries,
    first_imports,
    modules,
    public,
    sections,
    sources,
)

# From the roof down: a room imports from the rows below its own alone.
ORDER = (
    {'__init__', '__main__'},
    {'commands'},
    {'trials', 'export'},
    {'apis'},
    {'engine'},
    {'runtime'},
    {'inference'},
    {'datasets', 'evaluation', 'streaming', 'visualization'},
    {'models'},
    {'layers'},
    {'ops'},
)
# The ground: small modules that import each other alone.
GROUND = {
    *('configs', 'errors', 'fetch', 'files', 'hosts', 'markdown'),
    *('metafiles', 'pictures', 'png', 'progress', 'progress_lines'),
    *('registry', 'video'),
}
# What stands between the command predict and a model knows neither torch nor
# a host.
HOST_FREE = ('numpy', 'PIL', 'cv2', 'contourpy', 'rich', PACKAGE)
# All that a room, or one file of it, may import beside Python's own modules.
ALLOWED = {
    'pictures': ('numpy', 'PIL', 'cv2', PACKAGE),
    'inference': HOST_FREE,
    'streaming': ('numpy', 'rasterio', PACKAGE),
    'runtime': (*HOST_FREE, 'onnxruntime', 'openvino', 'torch'),
    'ops': ('torch', 'triton', f'{PACKAGE}.ops'),
    'layers': (
        'torch',
        *(f'{PACKAGE}.{name}' for name in ('ops', 'layers', 'errors')),
    ),
    # Takes the hosts' classes where there are hosts.
    f'{PACKAGE}.layers.building': (
        *('mmcv.cnn', 'mmengine.model'),
        *(f'{PACKAGE}.{name}' for name in ('layers', 'registry')),
    ),
}
# Of torch and the hosts, which ask for them.
THEIR_NAMES = {'_abbr_', '_load_from_state_dict'}
MAX_LINES = 400


# Each check yields (source, line, what to do).


def arrows_point_down():
    height = {room: i for i, row in enumerate(ORDER) for room in row}
    height |= dict.fromkeys(GROUND, len(ORDER))
    for source in sources():
        here = source.room
        if here not in height:
            yield source, 1, f'put {here} into ORDER or GROUND of this test'
            continue
        for found in all_imports(source):
            there = found.room
            if there not in height or found.name == '__version__':
                continue
            if there == here or {here, there} <= GROUND:
                continue
            if height[there] <= height[here]:
                advice = (
                    f'{here} must not import {found}: move what both need to '
                    'a room below, or this into a room above'
                )
                yield source, found.line, advice


def rooms_need_what_they_say():
    for source in sources():
        allowed = ALLOWED.get(source.module, ALLOWED.get(source.room))
        if allowed is None:
            continue
        for found in all_imports(source):
            own = found.top in sys.stdlib_module_names
            inside = (f'{found.module}.'.startswith(f'{a}.') for a in allowed)
            if not own and not any(inside):
                advice = (
                    f'{source.room} must not import {found}: it needs '
                    f'{", ".join(allowed)} and nothing else'
                )
                yield source, found.line, advice


def no_circle():
    graph = {}
    where = {}
    for source in sources():
        targets = graph.setdefault(source.module, set())
        for found in first_imports(source):
            for target in _run_by(source, found):
                targets.add(target)
                where[source.module, target] = source, found.line
    for circle in _circles(graph):
        advice = f'break the circle of imports {" -> ".join(circle)}'
        yield *where[circle[0], circle[1]], advice


def _run_by(source, found):
    """Modules that an import runs to their end: its packages and itself."""
    parts = found.module.split('.')
    for end in range(1, len(parts) + 1):
        module = '.'.join(parts[:end])
        # A package around the importer is being run already; it lacks but
        # what it has not defined yet.
        around = f'{source.module}.'.startswith(f'{module}.')
        takes = module == found.module and found.name
        if module in modules() and (takes or not around):
            yield module


def _circles(graph):
    """A closed path for each edge that leads back."""
    done = set()

    def visit(module, path):
        if module in path:
            yield [*path[path.index(module) :], module]
        elif module not in done:
            for target in sorted(graph[module]):
                yield from visit(target, [*path, module])
            done.add(module)

    for module in sorted(graph):
        yield from visit(module, [])


def no_private_name_leaves_its_file():
    files = sources(PACKAGE, 'tools')
    homes = {}
    for source in files:
        for name in _defined(source.tree):
            homes.setdefault(name, set()).add(source.path)
    for source in files:
        for node in ast.walk(source.tree):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.Attribute):
                names = [node.attr]
            for name in names:
                own = homes.get(name, {source.path})
                if source.path not in own and name not in THEIR_NAMES:
                    advice = f'{name} is of {min(own)}: give it a plain name'
                    yield source, node.lineno, advice


def _defined(tree):
    """Names with one leading underscore that a file gives to something."""
    for node in ast.walk(tree):
        name = None
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            name = node.name
        elif isinstance(getattr(node, 'ctx', None), ast.Store):
            name = getattr(node, 'id', getattr(node, 'attr', None))
        if name and re.match(r'_[^_]', name):
            yield name


def files_are_short():
    for source in sources():
        lines = len(source.text.splitlines())
        if lines > MAX_LINES:
            advice = f'{lines} lines, at most {MAX_LINES}: split it'
            yield source, MAX_LINES + 1, advice


def commands_alone_parse():
    for source in sources():
        if source.room in ('commands', '__main__'):
            continue
        for found in all_imports(source):
            if found.top == 'argparse':
                yield source, found.line, 'parse arguments in commands/'
        for node in ast.walk(source.tree):
            # Bare, behind a module's name, or as a text.
            names = (getattr(node, k, '') for k in ('id', 'attr', 'value'))
            if any(n in ('Namespace', 'argparse.Namespace') for n in names):
                advice = 'take the values that are needed, no Namespace'
                yield source, node.lineno, advice


def all_public_is_annotated():
    for source in sources():
        for found in public(source):
            if found.unannotated:
                names = ', '.join(found.unannotated)
                advice = f'{found.title}: annotate {names}'
                yield source, found.line, advice


def docstrings_begin_with_a_sentence():
    for source in sources():
        for found in public(source):
            first, _, rest = found.docstring.partition('\n')
            if not first:
                advice = f'{found.title}: say in a docstring what it does'
            elif not first.endswith(('.', '?', '!')):
                advice = f'{found.title}: end the first line with a period'
            elif rest and not rest.startswith('\n'):
                advice = f'{found.title}: first a sentence, then a blank line'
            else:
                continue
            yield source, found.line, advice


# A type before a colon, as in `str: The path.`
TYPE = re.compile(
    r'(optional |list of |None|bool|bytes|complex|dict|float|frozenset|int|'
    r'list|ndarray|object|set|str|tuple|type|(?:\w+\.)+\w+|[A-Z]\w*[a-z]\w*)'
    r'(\[.*\]|( \| |, | or )[\w.\[\]]+)*'
)


def docstrings_leave_types_to_annotations():
    for source in sources():
        for found in public(source):
            for title, section in sections(found.docstring).items():
                for head, _ in entries(section):
                    typed = title in ('Args', 'Attributes') and '(' in head
                    if title in ('Returns', 'Yields'):
                        typed = TYPE.fullmatch(head)
                    if typed:
                        advice = (
                            f'{found.title}: leave the type in "{head}:" of '
                            f'{title} to the annotation'
                        )
                        yield source, found.line, advice


def docstrings_list_the_arguments():
    for source in sources():
        for found in public(source):
            listed = sections(found.docstring)
            args = _names(listed.get('Args', ''))
            attributes = _names(listed.get('Attributes', ''))
            known = found.parameters.keys() | found.attributes
            for name in sorted((args | attributes) - known):
                advice = f'{found.title}: it has no {name}, which is listed'
                yield source, found.line, advice
            if args and found.parameters:
                for name in sorted(found.parameters.keys() - args):
                    advice = f'{found.title}: list {name} under Args'
                    yield source, found.line, advice


def _names(section):
    return {name for entry in entries(section) for name in entry.names}


def docstrings_leave_defaults_to_signatures():
    for source in sources():
        for found in public(source):
            listed = sections(found.docstring)
            for title in ('Args', 'Attributes'):
                for entry in entries(listed.get(title, '')):
                    shown = any(found.parameters.get(n) for n in entry.names)
                    if shown and re.search('Default(s to|:)', entry.text):
                        advice = (
                            f'{found.title}: the signature shows the default '
                            f'of {entry.head}; say what it means, if anything'
                        )
                        yield source, found.line, advice


def docstrings_name_what_they_describe():
    for source in sources():
        for found in public(source):
            listed = sections(found.docstring)
            for title in ('Args', 'Attributes'):
                for entry in entries(listed.get(title, '')):
                    if re.match(r'(As )?of\b', entry.text, re.IGNORECASE):
                        advice = (
                            f'{found.title}: begin {entry.head} with a noun: '
                            '"Backend of the operator", not "Of the operator"'
                        )
                        yield source, found.line, advice


CHECKS = (
    arrows_point_down,
    rooms_need_what_they_say,
    no_circle,
    no_private_name_leaves_its_file,
    files_are_short,
    commands_alone_parse,
    all_public_is_annotated,
    docstrings_begin_with_a_sentence,
    docstrings_leave_types_to_annotations,
    docstrings_list_the_arguments,
    docstrings_leave_defaults_to_signatures,
    docstrings_name_what_they_describe,
)


@pytest.mark.parametrize('check', CHECKS, ids=lambda check: check.__name__)
def test_house(check):
    wrong = [f'{s.path}:{line}: {advice}' for s, line, advice in check()]
    assert not wrong, '\n'.join(['', *wrong])


def test_sources_are_found():
    """An empty walk would pass every check."""
    rooms = {source.room for source in sources()}
    assert {room for row in ORDER for room in row} | GROUND == rooms
    assert sum(len(list(public(source))) for source in sources()) > 500
