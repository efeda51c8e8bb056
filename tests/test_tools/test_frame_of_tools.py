# Copyright (c) mmseg_attn contributors.
"""All tools end errors in one line, and keep the hosts' greetings to them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'
# What imports a host, and so lets it print.
LOUD = ('mmcv', 'mmseg', 'mmdet') + tuple(
    f'mmseg_attn.{room}'
    for room in (
        *('apis', 'datasets', 'engine', 'evaluation', 'layers', 'models'),
        *('trials', 'visualization'),
    )
)
FILES = sorted(
    path
    for path in TOOLS.rglob('*.py')
    if "if __name__ == '__main__'" in path.read_text(encoding='utf-8')
    and path.name != 'base.py'  # run.py's process of another revision
)


def is_loud(module):
    return any(f'{module}.'.startswith(f'{name}.') for name in LOUD)


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_hosts_are_imported_quietly_and_errors_framed(path):
    tree = ast.parse(path.read_text(encoding='utf-8'))
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            assert not is_loud(name), (
                f'{path.name}:{node.lineno} imports {name}, which lets the '
                'hosts print: put it under `with quiet_imports():`'
            )
    if 'mmseg_attn.__main__' in {getattr(n, 'module', '') for n in tree.body}:
        return  # a command, of which the same is checked
    calls = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert 'run_command' in calls, f'{path.name}: end with run_command(main)'


@pytest.mark.parametrize('tool', ['train.py', 'test.py'])
def test_a_wrong_call_is_one_line(tool):
    done = subprocess.run(
        [sys.executable, TOOLS / tool, 'no_such.py', 'x.pth'][
            : 3 + (tool == 'test.py')
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == ''
    assert done.stderr.startswith('Error: No config file no_such.py, and none')
    assert done.stderr.count('\n') == 1
