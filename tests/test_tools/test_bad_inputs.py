# Copyright (c) mmseg_attn contributors.
"""Some of the wrong inputs of tools/dev/bad_inputs.py, which has them all."""

import subprocess
import sys
from pathlib import Path

import pytest

from mmseg_attn.errors import UserError

DEV = Path(__file__).parents[2] / 'tools' / 'dev'


@pytest.mark.slow
def test_a_sample_is_answered_clearly():
    done = subprocess.run(
        [sys.executable, DEV / 'bad_inputs.py', '--sample', '60'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *_, total = [line for line in done.stdout.splitlines() if '|' in line]
    cases, clear = total.split('|')[2:4]
    assert int(cases) == int(clear) >= 60


@pytest.fixture
def answers(monkeypatch):
    monkeypatch.syspath_prepend(DEV)
    import answers

    return answers


class Nothing:
    ran = False

    def payload_ran(self):
        return self.ran


def fail(error):
    raise error


@pytest.mark.parametrize(
    'run, python, verdict',
    [
        (lambda: fail(SystemExit('Error: a is wrong, expected b.')), 0, 'cl'),
        (lambda: fail(SystemExit('Error: a is\nwrong, expected b.')), 0, 'ma'),
        (lambda: fail(SystemExit('Error: no')), 0, 'vague'),
        (lambda: fail(SystemExit(0)), 0, 'silent'),
        (lambda: None, 0, 'silent'),
        (lambda: fail(UserError('a is wrong, expected b.')), 0, 'traceback'),
        (lambda: fail(UserError('a is wrong, expected b.')), 1, 'clear'),
        (lambda: fail(KeyError('a is wrong, expected b.')), 1, 'traceback'),
        (lambda: fail(RuntimeError('a is wrong, so is b.')), 1, 'traceback'),
    ],
)
def test_verdicts(answers, run, python, verdict):
    found = answers.answer_of(answers.Case('a', 'b', run, python), Nothing())
    assert found.verdict.startswith(verdict)


def test_code_that_ran_is_unsafe_whatever_is_said(answers):
    material = Nothing()
    material.ran = True
    case = answers.Case('a', 'b', lambda: fail(SystemExit('Error: refused')))
    assert answers.answer_of(case, material).verdict == 'unsafe'
