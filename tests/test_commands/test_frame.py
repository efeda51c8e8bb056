# Copyright (c) mmseg_attn contributors.
"""What all commands have in common: options, errors, and how they start."""

import argparse
import errno
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmseg_attn import __main__, commands
from mmseg_attn.commands import options
from mmseg_attn.errors import UserError, run_command

ROOT = Path(__file__).parents[2]
FILES = {
    path.stem
    for path in Path(commands.__file__).parent.glob('*.py')
    if 'def main(' in path.read_text()
}
# Arguments that parse, of each command.
ARGUMENTS = {
    'info': [],
    'scenes': ['out'],
    'demo': [],
    'compare': [],
    'config': ['a.py'],
    'train': ['a.py'],
    'test': ['a.py', 'b.pth'],
    'browse': ['a.py', '--out', 'c'],
    'flops': ['a.py'],
    'labels': ['a.py'],
    'zoo': ['list'],
    'reproduce': ['a'],
    'export': ['a.py', 'b.pth', 'c.onnx'],
    'predict': ['a.py', 'b.pth', 'c.png'],
    'worst': ['a.py', 'b.pth'],
    'attention': ['a.py', 'b.pth', 'c.png', '--pixel', '1', '2'],
}


@pytest.mark.parametrize('size', ['100,100', 'a.png', '-5', '0'])
def test_a_window_is_one_number(size, capsys):
    parser = argparse.ArgumentParser()
    options.add_slide(parser, 'what')
    assert parser.parse_args(['--slide', '96']).slide == 96
    assert parser.parse_args(['--slide']).slide == 0  # the config's
    with pytest.raises(SystemExit):
        parser.parse_args(['--slide', size])
    assert f"the config's size, got {size!r}" in capsys.readouterr().err


def test_each_file_is_a_command():
    assert set(__main__.COMMANDS) == FILES
    assert set(ARGUMENTS) == FILES


def test_help_imports_no_library():
    """Else it takes seconds. All in one process, for the sake of time."""
    code = (
        'import contextlib, io, sys\n'
        'from mmseg_attn.__main__ import COMMANDS, main\n'
        'for name in COMMANDS:\n'
        '    with contextlib.redirect_stdout(io.StringIO()) as out:\n'
        '        try:\n'
        "            main([name, '--help'])\n"
        '        except SystemExit as end:\n'
        '            assert end.code == 0\n'
        "    assert 'usage' in out.getvalue()\n"
        "slow = {'torch', 'numpy', 'mmengine', 'mmcv', 'matplotlib', 'cv2'}\n"
        'assert not slow & set(sys.modules), slow & set(sys.modules)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('name', sorted(FILES))
def test_ctrl_c_and_errors_of_every_command(name, monkeypatch, capsys):
    module = importlib.import_module(f'mmseg_attn.commands.{name}')
    full = OSError(errno.ENOSPC, 'No space left on device', 'out.png')
    quota = OSError(errno.EDQUOT, 'Disk quota exceeded', 'out.png')
    for error, code, line in (
        (KeyboardInterrupt(), 130, ''),
        (UserError('a is\n b: do c.'), 'Error: a is b: do c.', ''),
        (FileNotFoundError(2, 'No such file', 'x'), None, 'No such file'),
        (full, None, "left on device: 'out.png'. Free some space"),
        (quota, None, "quota exceeded: 'out.png'. Free some space"),
    ):

        def fail(args, error=error):
            raise error

        monkeypatch.setattr(module, 'main', fail)
        with pytest.raises(SystemExit) as end:
            __main__.main([name, *ARGUMENTS[name]])
        if code:
            assert end.value.code == code
        else:
            assert end.value.code.startswith('Error: ')
            assert line in end.value.code
            assert '\n' not in end.value.code
        said = capsys.readouterr().err
        assert said.startswith('Stopped.') == (code == 130)
    monkeypatch.setattr(module, 'main', lambda args: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # a bug keeps its traceback
        __main__.main([name, *ARGUMENTS[name]])


def test_tools_have_the_same_frame(capsys):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        run_command(interrupted)
    assert end.value.code == 130
    assert capsys.readouterr().err == 'Stopped.\n'
    with pytest.raises(SystemExit) as end:
        run_command(lambda: 3)
    assert end.value.code == 3


@pytest.mark.parametrize(
    'words',
    [['zoo', '--debug', 'verify', 'x'], ['zoo', 'verify', 'x', '--debug']],
)
def test_debug_behind_a_subcommand_too(words, monkeypatch, capsys):
    def fail(args):
        raise UserError('a is b.') from ZeroDivisionError('why')

    monkeypatch.setattr('mmseg_attn.commands.zoo.main', fail)
    with pytest.raises(SystemExit, match='Error: a is b.'):
        __main__.main(words)
    assert 'ZeroDivisionError: why' in capsys.readouterr().err


def test_without_what_hosts_bring_commands_say_what_to_install(tmp_path):
    """In one process, where torch alone is installed."""
    code = (
        'import sys\n'
        'hosts = ("mmengine", "mmcv", "mmseg", "mmdet", "rich", "numpy",\n'
        '         "cv2", "matplotlib", "PIL", "yaml")\n'
        'class Finder:\n'
        '    def find_spec(self, name, *rest):\n'
        '        if name.partition(".")[0] in hosts:\n'
        '            raise ModuleNotFoundError(name, name=name)\n'
        'import importlib.util as util\n'
        'found = util.find_spec\n'
        'util.find_spec = lambda n, *r: None if n in hosts else found(n, *r)\n'
        'sys.meta_path.insert(0, Finder())\n'
        'from mmseg_attn.__main__ import main\n'
        f'for name, words in {ARGUMENTS}.items():\n'
        '    try:\n'
        '        main([name, *words])\n'
        '    except SystemExit as end:\n'
        '        assert name != "info", end\n'
        '        line = "pip install \\"mmseg_attn[onedl]\\""\n'
        '        assert line in str(end.code), (name, end.code)\n'
        '    else:\n'
        '        assert name == "info"\n'
    )
    (tmp_path / 'c.png').touch()
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('name', ['predict', 'worst', 'attention'])
def test_names_of_classes_come_from_a_file_or_the_line(name, tmp_path):
    about = {'classes': ['sky', 'tree'], 'palette': [[0, 0, 9], [0, 9, 0]]}
    path = tmp_path / 'dataset.json'
    path.write_text(json.dumps(about))
    parser = argparse.ArgumentParser()
    module = importlib.import_module(f'mmseg_attn.commands.{name}')
    module.add_arguments(parser)
    for text, expected in ((str(path), about), ('sky, tree', ['sky', 'tree'])):
        words = [*ARGUMENTS[name], '--classes', text]
        assert parser.parse_args(words).classes == expected


def test_options_have_one_wording():
    """Of one name, one help text in all commands that have it."""
    texts = {}
    for name in FILES:
        parser = argparse.ArgumentParser()
        module = importlib.import_module(f'mmseg_attn.commands.{name}')
        module.add_arguments(parser)
        for action in parser._actions:
            for flag in action.option_strings:
                texts.setdefault(flag, {})[name] = action.help
    for flag in ('--device', '--cfg-options', '--images', '--masks'):
        assert len(texts[flag]) > 1
        assert len(set(texts[flag].values())) == 1, texts[flag]


@pytest.mark.parametrize(
    'texts, expected',
    [
        ([], {}),
        (['a.b=1', 'c=x'], {'a.b': 1, 'c': 'x'}),
        (['a=[1,2]', 'b=True'], {'a': [1, 2], 'b': True}),
        (['a=b=c'], {'a': 'b=c'}),
    ],
)
def test_config_options_are_read(texts, expected):
    assert options.read_options(texts) == expected


@pytest.mark.parametrize('text', ['a.b', '=3'])
def test_config_options_that_are_none(text):
    with pytest.raises(UserError, match='expected KEY=VALUE'):
        options.read_options(['c=1', text])
