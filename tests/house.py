# Copyright (c) mmseg_attn contributors.
"""The project's sources as the checks of test_house.py read them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = 'mmseg_attn'
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
SECTIONS = ('Args', 'Attributes', 'Returns', 'Yields', 'Raises', 'Examples')


class Source(NamedTuple):
    """A file of the project.

    Attributes:
        path: From the root of the project.
        text: What it says.
        tree: The same, parsed.
    """

    path: Path
    text: str
    tree: ast.Module

    @property
    def module(self) -> str:
        """Dotted name; of a package's ``__init__`` that of the package."""
        parts = self.path.with_suffix('').parts
        return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)

    @property
    def room(self) -> str:
        """First folder in the package, or the name of a file beside them."""
        parts = self.path.with_suffix('').parts
        return parts[1] if parts[0] == PACKAGE else parts[0]


@cache
def sources(*folders: str) -> list[Source]:
    """All Python files of folders, by default of the package."""
    found = []
    for folder in folders or [PACKAGE]:
        for path in sorted((ROOT / folder).rglob('*.py')):
            text = path.read_text(encoding='utf-8')
            relative = path.relative_to(ROOT)
            found.append(Source(relative, text, ast.parse(text)))
    return found


@cache
def modules() -> set[str]:
    """Names of all modules of the package."""
    return {source.module for source in sources()}


class Import(NamedTuple):
    """One name that a statement imports.

    Attributes:
        module: Its module, or the module that it is.
        name: What is taken from the module, None if it is the module itself.
        line: Of the statement.
    """

    module: str
    name: str | None
    line: int

    @property
    def top(self) -> str:
        """The distribution's module."""
        return self.module.partition('.')[0]

    @property
    def room(self) -> str | None:
        """The room it is from, None outside of the package."""
        parts = self.module.split('.')
        if parts[0] != PACKAGE:
            return None
        return parts[1] if len(parts) > 1 else '__init__'

    def __str__(self) -> str:
        return '.'.join(filter(None, [self.module, self.name]))


def imports(source: Source, node: ast.AST) -> Iterator[Import]:
    """What a statement imports, with absolute names."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, None, node.lineno)
    elif isinstance(node, ast.ImportFrom):
        base = [node.module] if node.module else []
        if node.level:
            folder = source.path.parent.parts
            base = [*folder[: len(folder) - node.level + 1], *base]
        module = '.'.join(base)
        for alias in node.names:
            inner = f'{module}.{alias.name}'
            if inner in modules():
                yield Import(inner, None, node.lineno)
            else:
                yield Import(module, alias.name, node.lineno)


def all_imports(source: Source) -> Iterator[Import]:
    """All imports of a file: in functions and for annotations, too."""
    for node in ast.walk(source.tree):
        yield from imports(source, node)


def first_imports(source: Source) -> Iterator[Import]:
    """Imports that run when the file is imported."""
    waiting = [source.tree]
    while waiting:
        node = waiting.pop(0)
        yield from imports(source, node)
        for child in ast.iter_child_nodes(node):
            is_for_types = isinstance(child, ast.If) and (
                'TYPE_CHECKING' in ast.unparse(child.test)
            )
            if not is_for_types and not isinstance(child, FUNCTION):
                waiting.append(child)


class Public(NamedTuple):
    """Something public: a module, a class, a function or a method.

    Attributes:
        source: Its file.
        node: Where it is defined.
        parameters: Names and defaults; of a class those of ``__init__``.
        attributes: What else a class's docstring may list.
        unannotated: Names that lack an annotation, ``return`` among them.
    """

    source: Source
    node: ast.AST
    parameters: dict[str, ast.expr | None]
    attributes: set[str]
    unannotated: list[str]

    @property
    def line(self) -> int:
        """Where it begins."""
        return getattr(self.node, 'lineno', 1)

    @property
    def title(self) -> str:
        """What to call it."""
        return getattr(self.node, 'name', 'the file')

    @property
    def docstring(self) -> str:
        """Without indentation, empty if there is none."""
        return ast.get_docstring(self.node) or ''


def public(source: Source) -> Iterator[Public]:
    """All that is public in a file."""
    yield Public(source, source.tree, {}, set(), [])
    for node in source.tree.body:
        if getattr(node, 'name', '_').startswith('_'):
            continue
        if isinstance(node, FUNCTION):
            yield _function(source, node)
        elif isinstance(node, ast.ClassDef):
            yield from _class(source, node)


def _class(source, node):
    methods = [n for n in node.body if isinstance(n, FUNCTION)]
    # Autograd calls these with what `apply` is given, as the class says.
    is_step = any('autograd.Function' in ast.unparse(b) for b in node.bases)
    parameters, unannotated, attributes = {}, [], set()
    for method in methods:
        if method.name == '__init__':
            init = _function(source, method, is_method=True)
            parameters, unannotated = init.parameters, init.unannotated
    for part in ast.walk(node):
        if isinstance(part, ast.AnnAssign) and isinstance(
            part.target, ast.Name
        ):
            attributes.add(part.target.id)
        elif isinstance(part, ast.Attribute):
            attributes.add(part.attr)
    yield Public(source, node, parameters, attributes, unannotated)
    if not is_step:
        for method in methods:
            if not method.name.startswith('_') or method.name == '__call__':
                yield _function(source, method, is_method=True)


def _function(source, node, is_method=False):
    decorators = [ast.unparse(d) for d in node.decorator_list]
    is_kernel = any('jit' in d for d in decorators)  # Triton has its own
    given = node.args
    plain = [*given.posonlyargs, *given.args]
    late = dict(zip(plain[::-1], given.defaults[::-1], strict=False))
    late |= dict(zip(given.kwonlyargs, given.kw_defaults, strict=True))
    if is_method and 'staticmethod' not in decorators:
        plain = plain[1:]
    rest = [a for a in (given.vararg, given.kwarg) if a]
    named = [*plain, *given.kwonlyargs]
    unannotated = [a.arg for a in (*named, *rest) if not a.annotation]
    if not node.returns and node.name != '__init__':
        unannotated.append('return')
    parameters = {a.arg: late.get(a) for a in named}
    parameters |= dict.fromkeys(a.arg for a in rest)
    if is_kernel:  # a docstring names but what its many arguments hide
        return Public(source, node, {}, set(parameters), [])
    return Public(source, node, parameters, set(), unannotated)


class Entry(NamedTuple):
    """An entry of a docstring's section.

    Attributes:
        head: Before the colon; empty if there is none.
        text: After it.
    """

    head: str
    text: str

    @property
    def names(self) -> list[str]:
        """Arguments, without a type in parentheses."""
        plain = re.sub(r' \(.*\)', '', self.head)
        return [name.lstrip('*') for name in plain.split(', ') if name]


def sections(docstring: str) -> dict[str, str]:
    """The sections of a docstring that have a title, dedented."""
    found = {}
    title = None
    for line in docstring.splitlines():
        if line.rstrip(':') in SECTIONS and line.endswith(':'):
            title = line.rstrip(':')
            found[title] = ''
        elif line and not line.startswith(' '):
            title = None
        elif title:
            found[title] += line.removeprefix('    ') + '\n'
    return found


def entries(section: str) -> Iterator[Entry]:
    """Entries of a section; lines that go on are indented."""
    for text in re.split(r'\n(?=\S)', section.strip()):
        text = ' '.join(text.split())
        head, colon, rest = text.partition(': ')
        yield Entry(head if colon else '', rest)
