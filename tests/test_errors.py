# Copyright (c) mmseg_attn contributors.
import sys

import pytest

import mmseg_attn
from mmseg_attn.errors import UserError, run_command


@pytest.mark.parametrize(
    'text',
    [
        'a.png is\n  broken',
        # As torch passes it on from a loader's worker.
        'Caught UserError in DataLoader worker process 0.\n'
        'Original Traceback (most recent call last):\n'
        '  File "a.py", line 1, in b\n'
        'mmseg_attn.errors.UserError: a.png is\nbroken\n',
    ],
)
def test_all_of_a_message_comes_as_one_line(text):
    def main():
        raise UserError(text)

    with pytest.raises(SystemExit) as end:
        run_command(main)
    assert end.value.code == 'Error: a.png is broken'


@pytest.mark.parametrize('name', ['mmengine', 'mmcv', 'mmseg', 'mmdet'])
def test_a_missing_host_is_one_line_that_says_what_to_install(name):
    def main():
        raise ModuleNotFoundError(f'No module named {name!r}', name=name)

    with pytest.raises(SystemExit) as end:
        run_command(main)
    assert 'is not installed' in end.value.code
    assert 'pip install "mmseg_attn[' in end.value.code


@pytest.mark.parametrize('name', ['PIL', 'rich', 'yapf'])
def test_what_runs_exported_models_is_named_alone(name, monkeypatch):
    """Where no host is: of what they bring, exported models need little."""
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)

    def main():
        raise ModuleNotFoundError(f'No module named {name!r}', name=name)

    with pytest.raises(SystemExit) as end:
        run_command(main)
    runs = 'exported models need pip install numpy onnxruntime pillow rich'
    assert (runs in end.value.code) == (name != 'yapf')
    assert 'pip install "mmseg_attn[onedl]"' in end.value.code


def test_a_public_name_without_a_host(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name, name='mmengine')

    monkeypatch.setattr('importlib.import_module', missing)
    with pytest.raises(UserError, match='mmengine is not .* pip install'):
        mmseg_attn.__getattr__('CCHead')


def test_another_missing_module_keeps_its_traceback():
    def main():
        raise ModuleNotFoundError("No module named 'own'", name='own')

    with pytest.raises(ModuleNotFoundError):
        run_command(main)


def test_a_traceback_comes_when_it_is_asked_for(monkeypatch, capsys):
    def main():
        assert '--debug' not in sys.argv
        raise UserError('a is b: do c.') from ZeroDivisionError('why')

    for arguments in (['tool'], ['tool', '--debug', 'x']):
        monkeypatch.setattr(sys, 'argv', list(arguments))
        with pytest.raises(SystemExit) as end:
            run_command(main)
        assert end.value.code == 'Error: a is b: do c.'
        said = capsys.readouterr().err
        assert ('ZeroDivisionError: why' in said) == ('--debug' in arguments)
