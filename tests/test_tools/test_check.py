# Copyright (c) mmseg_attn contributors.
"""The check of a device finds what is wrong, and nothing else."""

import dataclasses
import importlib
import sys
from pathlib import Path

import pytest
import torch

from mmseg_attn.ops.core.device import tf32_is_allowed
from mmseg_attn.ops.declare import OPERATORS, Backend

TOOLS = Path(__file__).resolve().parents[2] / 'tools' / 'benchmark'

if not TOOLS.is_dir():
    pytest.skip('not in a checkout', allow_module_level=True)

# Its modules find each other beside the script.
sys.path.append(str(TOOLS))

SMALL = ['--device', 'cpu', '--sizes', '1x5x6', '--channels', '32', '--only']


@pytest.fixture
def few_cases(monkeypatch):
    """Of axial attention, for the seconds that each takes."""
    declared = OPERATORS['axial_attention']
    changed = dataclasses.replace(declared, cases=declared.cases[:2])
    monkeypatch.setitem(OPERATORS, 'axial_attention', changed)
    return changed


def test_what_is_right_passes(few_cases, tmp_path, capsys):
    import check

    check.main([*SMALL, 'axial_attention', 'axial', '--out', str(tmp_path)])
    text = (tmp_path / 'check.md').read_text()
    for dtype in ('float64', 'float32', 'bfloat16', 'float16'):
        assert f'| axial_attention | {dtype} | off |' in text
    for switch in ('allow_tf32', 'fp32_precision'):
        assert f'| axial_attention | float32 | {switch} |' in text
    assert '| axial 1x5x6 | bfloat16 | off | 1 | 0 |' in text
    assert ' 0 wrong, 0 jobs not done' in capsys.readouterr().out
    check.main([*SMALL, 'CrissCrossAttention', '--out', str(tmp_path)])
    text = (tmp_path / 'check.md').read_text()
    assert '| CrissCrossAttention | float32 | off | 4 | 0 |' in text
    assert '| CrissCrossAttention | float16 | off | 2 | 0 |' in text


def test_all_is_asked_for():
    import check

    jobs = list(check.jobs(['1x5x6']))
    asked = {(j.name, j.dtype) for j in jobs if j.kind == 'operator'}
    assert asked == {(n, d) for n, o in OPERATORS.items() for d in o.dtypes}
    layers = {j.name for j in jobs if j.kind == 'layer'}
    assert layers == set(check.layers.__all__)
    assert {j.name for j in jobs if j.size} == set(check.CASES)


@pytest.mark.parametrize('factor, status', [(1 + 1e-5, 3), (1.01, 4)])
def test_what_is_wrong_ends_it(
    few_cases, monkeypatch, tmp_path, capsys, factor, status
):
    import check

    right = few_cases.backends['torch'].run

    def wrong(*args):
        return right(*args) * factor

    table = {**few_cases.backends, 'torch': Backend(wrong)}
    changed = dataclasses.replace(few_cases, backends=table)
    monkeypatch.setitem(OPERATORS, 'axial_attention', changed)
    options = [*SMALL, 'axial_attention', '--dtypes', 'float32']
    options += ['--out', str(tmp_path)]
    with pytest.raises(SystemExit) as caught:
        check.main(options)
    assert caught.value.code == status
    lines = capsys.readouterr().out.splitlines()
    found = [line for line in lines if line.startswith('WRONG')]
    assert found and all(' TF32 ' not in line for line in found[:2])
    assert 'backend torch: output ' in '\n'.join(found)
    assert (
        found[0].removeprefix('WRONG ') in (tmp_path / 'check.md').read_text()
    )


def test_no_time_is_said(capsys):
    import check

    with pytest.raises(SystemExit) as caught:
        check.main([*SMALL, 'axial_attention', '--seconds', '-1'])
    assert caught.value.code == 4
    assert 'not done within -1 s: axial_attention' in capsys.readouterr().out


def judged(function):
    """The result of a trial of a function against the square."""
    import trials
    from measure import Contestant, as_it_is

    x = torch.linspace(-1, 1, 12).view(1, 3, 2, 2)
    ours, theirs, exact = (
        Contestant('x', f, [y], as_it_is)
        for f, y in (
            (function, x),
            (torch.square, x),
            (torch.square, x.double()),
        )
    )
    return trials.judge(trials.Trial('x', ours, theirs, exact, floor=1e-6))


def test_rounding_of_sums_grows_with_their_terms():
    """One after the other in fp32 is within it, a lost term of them not."""
    from trials import rounding_of_sums

    torch.manual_seed(0)
    terms = torch.rand(2**14)
    total = torch.zeros(())
    for term in terms:
        total += term
    exact = terms.double().sum()
    allowed = rounding_of_sums(len(terms), torch.bfloat16) * exact
    assert (total - exact).abs() < allowed
    assert (terms[1:].double().sum() - exact).abs() > allowed


def unwritten(x):
    if torch.are_deterministic_algorithms_enabled():  # torch itself poisons
        return x.square()
    out = torch.empty_like(x)
    out[0, 0] = x[0, 0]
    return torch.where(out == x, x.square(), out + x.square())


def unlike(x):
    return x.square() + 1e-7 * torch.rand(())


def narrow(x):
    raise RuntimeError('too narrow\nfor it')


def half_gradient(x):
    return x * x.detach()


@pytest.mark.parametrize(
    'function, problem',
    [
        (torch.square, ''),
        (unwritten, 'output inf'),
        (unlike, 'not the same twice'),
        (narrow, 'RuntimeError: too narrow'),
        (half_gradient, 'gradient 1 5.0e-01'),
    ],
)
def test_problems(function, problem):
    result = judged(function)
    assert problem in result.problem and bool(problem) == bool(result.problem)
    assert result.grave == bool(problem)


@pytest.mark.parametrize('switch', ['off', 'allow_tf32', 'fp32_precision'])
def test_switches_of_tf32(switch):
    import trials

    if switch == 'fp32_precision' and not hasattr(
        torch.backends.cuda.matmul, switch
    ):
        pytest.skip('this torch has no such switch')
    with trials.tf32(switch):
        assert tf32_is_allowed() == (switch != 'off')
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(
    'tool, arguments, message',
    [
        ('check', ['--workers', '0'], "'0' is no integer from 1 on"),
        ('count', ['--channels', '-8'], "'-8' is no integer from 1 on"),
        ('sweep', ['--channels', '0'], "'0' is no integer from 1 on"),
        ('sweep', ['--sizes', '1x0x1'], 'is not like 2x97x97'),
        ('offline', ['--jobs', 'two'], "'two' is no integer from 1 on"),
        (
            'offline',
            ['--shapes', 'interlaced', '--dtypes', 'float32'],
            "no shape of ['interlaced'] is in ['float32']",
        ),
    ],
)
def test_bad_arguments_are_said_in_a_line(
    tool, arguments, message, monkeypatch, capsys
):
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(tool).main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
