# Copyright (c) mmseg_attn contributors.
"""Code blocks of Markdown pages: found, run, or at least parsed.

A block is run unless a comment in the line before its fence says why not:
`<!-- not run: REASON -->`. Of such a block, each command is parsed by the
program that it calls, without running it. A block with a title is a file.
"""

import argparse
import io
import re
import runpy
import shlex
import shutil
import string
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from mmseg_attn.__main__ import main
from mmseg_attn.configs import find_config

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(
    r'^(?:<!-- not run: ([^\n]*) -->\n)?```(\w*)(?: title="([^"\n]*)")?\n'
    r'(.*?)^```$',
    re.M | re.S,
)
EXTRAS = set(
    re.findall(r'^([\w-]+) = \[', (ROOT / 'pyproject.toml').read_text(), re.M)
)
# Modules that pages import and that CI does not install, of the same interface
# as far as the pages go. Where the real one is installed, it is taken.
STAND_INS = ROOT / 'tests/stand_ins'
# What each drawing and each training of a page gets besides: seconds instead
# of minutes.
FEW = ['--train', '16', '--val', '8']
SHORT = [
    'train_cfg.max_iters=4',
    'train_cfg.val_interval=4',
    'default_hooks.checkpoint.interval=4',
]
TINY = ['--iters', '4', '--batch-size', '2', '--crop', '64']


@dataclass(frozen=True)
class Block:
    """A block of code in a page.

    Attributes:
        place: Page and line.
        language: Behind its fence.
        text: What is in it.
        reason: Why it is not run; empty if it is.
        title: The file that it is; empty for none.
    """

    place: str
    language: str
    text: str
    reason: str
    title: str


def blocks_of(page: Path) -> list[Block]:
    """Find the blocks of a page in their order."""
    text = page.read_text(encoding='utf-8')
    name = page.relative_to(ROOT).as_posix()
    blocks = []
    for found in BLOCK.finditer(text):
        reason, language, title, code = found.groups()
        line = text.count('\n', 0, found.start(4))  # of its fence, from 1
        blocks.append(
            Block(f'{name}:{line}', language, code, reason or '', title or '')
        )
    return blocks


def commands_in(text: str) -> list[list[str]]:
    """Split a shell block into commands, with its variables put in."""
    variables, commands = {}, []
    for line in text.replace('\\\n', ' ').splitlines():
        line = string.Template(line).safe_substitute(variables)
        words = shlex.split(line, comments=True)
        assigned = {}
        while words and re.match(r'[A-Z_]+=', words[0]):
            name, _, value = words.pop(0).partition('=')
            assigned[name] = value
        if words:
            commands.append(words)
        else:
            variables.update(assigned)
    return commands


def as_tool(words: list[str]) -> list[str]:
    """`mim train` and `mim test` as the tools that they call."""
    if words[:1] != ['mim'] or words[1] not in ('train', 'test'):
        return words
    config, *rest = words[3:]
    for option in ('--gpus', '--checkpoint'):
        if option in rest:
            place = rest.index(option)
            value = rest[place + 1]
            del rest[place : place + 2]
            if option == '--checkpoint':
                rest.insert(0, value)
    return ['python', f'tools/{words[1]}.py', find_config(config), *rest]


def call(words: list[str]) -> None:
    """Run a Python command in this process.

    Raises:
        AssertionError: It ends with an error.
    """
    if words[1:3] == ['-m', 'mmseg_attn']:
        program = lambda: main(words[3:])  # noqa: E731
    else:
        program = lambda: _run_script(words[1:])  # noqa: E731
    try:
        code = program()
    except SystemExit as ended:
        code = ended.code
    assert not code, f'{shlex.join(words)}: {code}'


def run(words: list[str], given: set[str]) -> None:
    """Run a command of a page in the working folder.

    Args:
        words: The command.
        given: Folders that the test has put there. They make way for those
            that the page makes itself.
    """
    words = as_tool(words)
    assert words[0] == 'python', f'{words[0]} is not run: mark the block'
    training = 'train' in (Path(words[1]).stem, *words[3:4])
    made = ''
    if '--minutes' in words:  # on one's own pictures: no config yet
        place = words.index('--minutes')
        words[place : place + 2] = TINY
    elif training:
        made = words[words.index('--work-dir') + 1]
    elif words[3:4] == ['scenes']:
        made = words[4]
        words += [] if '--train' in words else FEW
    if made in given:
        given.remove(made)
        shutil.rmtree(made)
    if made and training and '--cfg-options' in words:
        place = words.index('--cfg-options') + 1
        words[place:place] = SHORT
    elif made and training:
        words += ['--cfg-options', *SHORT]
    call(words)
    if made and training:  # as long as it says
        shutil.copy(f'{made}/iter_4.pth', f'{made}/iter_1000.pth')


def parse(words: list[str], monkeypatch) -> None:
    """Check that a command could be run: its program, options and configs."""
    for word in words:
        if re.search(r'_\d*xb\d|_coco(\.py)?$', word):
            assert find_config(word), word
    words = as_tool(words)
    if words[0] == 'make':
        targets = [w for w in words[1:] if '=' not in w]
        makefile = (ROOT / 'Makefile').read_text()
        assert all(f'\n{target}:' in makefile for target in targets), words
    elif words[0] == 'pip':
        assert words[1] in ('install', 'uninstall'), words
        for extras in re.findall(r'\.\[([\w,-]+)\]', ' '.join(words)):
            assert EXTRAS.issuperset(extras.split(',')), extras
    elif words[0] == 'bash':
        subprocess.run(['bash', '-n', words[1]], check=True)
    elif words[0] == 'mim':
        # Its own program is not here: test_mim.py runs it.
        assert words[1] in ('search', 'download', 'run'), words
        assert 'mmseg_attn' in words[2:3], words
    elif words[0] == 'pre-commit':
        assert (ROOT / '.pre-commit-config.yaml').is_file()
    elif words[0] == 'git':
        assert words[1] in ('clone', 'switch', 'add', 'commit'), words
    else:
        assert words[0] == 'python', f'no way to check {words}'
        with monkeypatch.context() as patched:
            patched.setattr(argparse.ArgumentParser, 'parse_args', _parse)
            try:
                call(words)
            except _Parsed:
                return
        raise AssertionError(f'{words} parses no arguments')


def execute(block: Block, scope: dict) -> None:
    """Run a block of Python; what its comments promise is checked.

    ``x = ...  # (1, 2)`` is the shape of x, ``print(...)  # text: words``
    what is printed, up to the colon.
    """
    printed = io.StringIO()
    with redirect_stdout(printed), stand_ins(block.text):
        exec(compile(block.text, block.place, 'exec'), scope)  # noqa: S102
    for name, shape in re.findall(
        r'^(\w+) = .*# (\([\d, ]+\))', block.text, re.M
    ):
        assert str(tuple(scope[name].shape)) == shape, f'{block.place}: {name}'
    promised = re.findall(r'^print\(.*\)  # ([^:\n]*)', block.text, re.M)
    if promised:
        lines = printed.getvalue().splitlines()
        assert [line for line in lines if line in promised] == promised, (
            f'{block.place} prints {lines}'
        )


@contextmanager
def stand_ins(text: str) -> Iterator[None]:
    """Let a text find in STAND_INS what it imports and is not installed."""
    imported = set(re.findall(r'^(?:import|from) (\w+)', text, re.M))
    if not imported & {path.stem for path in STAND_INS.glob('*.py')}:
        yield
        return
    sys.path.append(str(STAND_INS))
    try:
        yield
    finally:
        sys.path.remove(str(STAND_INS))
        for name in imported & {*sys.modules}:
            place = getattr(sys.modules[name], '__file__', None) or ''
            if Path(place).parent == STAND_INS:
                del sys.modules[name]


def _run_script(arguments: list[str]) -> None:
    script = Path(arguments[0])
    before = sys.argv, list(sys.path)
    sys.argv = arguments
    sys.path.insert(0, str(script.resolve().parent))
    try:
        runpy.run_path(str(script), run_name='__main__')
    finally:
        sys.argv, sys.path[:] = before


class _Parsed(BaseException):
    """The arguments are good."""


def _parse(self, *args, plain=argparse.ArgumentParser.parse_args, **options):
    plain(self, *args, **options)
    raise _Parsed
