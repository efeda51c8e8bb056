# Copyright (c) mmseg_attn contributors.
"""The benchmark on a bare machine, within autocast, on a GPU's clock, and
the peers that are for GPUs."""

import json
import math
import subprocess
import sys
import types
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch

TOOLS = Path(__file__).resolve().parents[2] / 'tools' / 'benchmark'

if not TOOLS.is_dir():
    pytest.skip('not in a checkout', allow_module_level=True)

# Its modules find each other beside the script.
sys.path.append(str(TOOLS))

BARE = """
import sys
absent = 'mmcv mmengine mmseg mmdet cv2 matplotlib rich triton natten'
sys.modules.update(dict.fromkeys(absent.split()))
sys.path.insert(0, sys.argv.pop(1))
import run
run.main(sys.argv[1:])
"""


def measured(options):
    """Rows of a run, of which none may differ from ours."""
    import run

    args = run.parse_args(['--channels', '32', '--repeat', '2', *options])
    runner = run.Runner(args, getattr(torch, args.dtype), (1e9, 1e9))
    (case,), (size,) = args.cases, args.sizes
    rows = runner.measure(case, size)
    assert not runner.wrong
    return {row['name']: row for row in rows}


def test_a_bare_machine(tmp_path):
    """torch alone: all of ours is measured, layers say which peers lack."""
    done = subprocess.run(
        [
            *(sys.executable, '-c', BARE, str(TOOLS)),
            *[
                '--sizes',
                '1x8x8',
                '--channels',
                '32',
                '--repeat',
                '2',
                '--out',
            ],
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert 'no plots: ' in done.stdout
    rows = json.loads((tmp_path / 'benchmark.json').read_text())['rows']
    notes = {row['case'] for row in rows if 'note' in row}
    assert notes == {'criss_cross_layer', 'interlaced_layer'}
    text = (tmp_path / 'benchmark.md').read_text()
    columns = {line.count('|') for line in text.splitlines() if '|' in line}
    assert len(columns) == 1


@pytest.mark.parametrize(
    'case', ['criss_cross', 'axial', 'interlaced_sparse', 'non_local']
)
def test_kernels_of_torch_agree(case):
    """By name; those for GPUs alone are refused here, with a reason."""
    rows = measured(['--cases', case, '--sizes', '2x9x12', '--peers', 'sdpa'])
    kind = 'SDPA merged' if case == 'criss_cross' else 'SDPA'
    assert rows[f'{kind}, flash']['total']['median'] > 0
    assert rows[f'{kind}, mem-efficient']['note']
    assert rows[f'{kind}, cuDNN']['note']
    math_row = rows[f'{kind}, math']
    if case == 'criss_cross':
        assert math_row['note'] == 'it returns no log-sum-exp'
    else:
        assert math_row['total']['median'] > 0


def test_ours_by_each_backend():
    rows = measured(
        ['--cases', 'criss_cross', '--sizes', '1x5x6', '--peers', 'backends']
    )
    assert rows['ours by torch']['total']['median'] > 0
    assert 'ours by reference' not in rows


def test_coarse_scores_are_no_other_formula():
    """Scores of 48 are rounded to 1/4 in bf16; a wrong formula is caught."""
    from cases import CASES
    from measure import verify

    torch.manual_seed(0)
    ours, peer = CASES['non_local'](1, 16, 16, 512, dtype=torch.bfloat16)
    expected = ours.results()
    verify(peer, expected, 0.0)
    right = peer.function
    peer.function = lambda query, key, value: right(query, key.flip(2), value)
    with pytest.raises(AssertionError, match='differs from ours'):
        verify(peer, expected, 0.0)


def test_the_gates_signs_may_flip():
    from cases import CASES

    offers = list(CASES['channelized_axial'](1, 4, 5, 32))
    assert len(offers) == 3 and all(x.has_relu for x in offers)


def test_parts_of_wide_values():
    """A value wider than a kernel takes: parts, each with the whole key."""
    import fused

    torch.manual_seed(0)
    query, key, value = (
        torch.randn(3, 1, 5, n, dtype=torch.float64) for n in (6, 6, 384)
    )
    parts = fused.in_parts(query, key, value)
    assert [x.shape for x in parts] == [(3, 3, 5, 128)] * 3
    assert torch.equal(fused.joined_parts(parts[2], 384), value)
    out = fused.attend(query, key, value, scale=0.7, backend='flash')
    expected = (0.7 * query @ key.mT).softmax(-1) @ value
    torch.testing.assert_close(out, expected)
    with pytest.raises(RuntimeError, match='2 heads of 384'):
        fused.in_parts(*(x.expand(-1, 2, -1, -1) for x in (query, key, value)))


def test_merged_kernels_are_exact():
    """In float64, with a value of several parts."""
    import fused
    import peers

    torch.manual_seed(0)
    inputs = [
        torch.randn(2, 4, 3, 1, n, dtype=torch.float64).requires_grad_()
        for n in (8, 8, 256)
    ]
    out = fused.criss_cross(*inputs, backend='flash')
    maps = (x.squeeze(-2).movedim(-1, 1) for x in inputs)
    expected = peers.einsum_criss_cross(*maps).movedim(1, -1).unsqueeze(-2)
    weight = torch.randn_like(out)
    for got, want in zip(
        (out, *torch.autograd.grad(out, inputs, weight)),
        (expected, *torch.autograd.grad(expected, inputs, weight)),
        strict=True,
    ):
        torch.testing.assert_close(got, want)


def test_compiled_formulas(monkeypatch):
    """Without the seconds that code generation takes."""
    compiled = partial(torch.compile, backend='aot_eager')
    monkeypatch.setattr(torch, 'compile', compiled)
    options = ['--cases', 'axial', '--sizes', '2x9x12', '--peers', 'compiled']
    rows = measured(options)
    assert list(rows)[-1] == 'einsum, compiled'
    assert rows['einsum, compiled']['total']['median'] > 0


def windows(query, key, value, kernel_size, stride):
    """What NATTEN computes where windows do not overlap."""
    assert kernel_size == stride
    rows, columns = (torch.arange(n) // stride for n in query.shape[1:3])
    window = (rows[:, None] * 1000 + columns).flatten()
    hidden = window[:, None] != window
    q, k, v = (x.flatten(1, 2).transpose(1, 2) for x in (query, key, value))
    scores = q.shape[-1] ** -0.5 * q @ k.mT
    weights = scores.masked_fill(hidden, -math.inf).softmax(-1)
    return (weights @ v).transpose(1, 2).reshape(value.shape)


def test_windows_of_natten(monkeypatch):
    module = types.SimpleNamespace(na2d=windows)
    options = [
        '--cases',
        'interlaced_sparse',
        '--sizes',
        '1x9x12',
        '--peers',
        'natten',
    ]
    monkeypatch.setitem(sys.modules, 'natten', None)
    assert 'not installed' in measured(options)['ours, then NATTEN']['note']
    monkeypatch.setitem(sys.modules, 'natten', module)
    assert measured(options)['ours, then NATTEN']['total']['median'] > 0


def test_within_autocast():
    """Maps of --dtype, parameters of fp32, products in bf16."""
    import cases
    from measure import Contestant

    with torch.autocast('cpu', torch.bfloat16):
        ours, host = cases.CASES['criss_cross_layer'](
            1, 5, 6, 32, dtype=torch.bfloat16, device='cpu'
        )
    assert ours.amp == torch.bfloat16 and ours.inputs[0].dtype == ours.amp
    assert {p.dtype for p in ours.parameters} == {torch.float32}
    assert ours.forward().dtype == host.forward().dtype == torch.bfloat16
    assert {x.dtype for x in ours.results()} == {torch.bfloat16, torch.float32}
    plain = Contestant('plain', torch.nn.Linear(3, 3), [torch.ones(3)], None)
    assert plain.amp is None and plain.forward().dtype == torch.float32
    rows = measured(
        ['--cases', 'criss_cross_layer', '--sizes', '1x9x12', '--amp']
    )
    assert rows['mmcv']['total']['median'] > 0


def test_mmcv_in_pure_bfloat16():
    """Its layer fails there: within autocast it is the peer."""
    options = '--cases criss_cross_layer --sizes 1x9x12 --dtype bfloat16'
    rows = measured(options.split())
    assert rows['mmcv under autocast']['total']['median'] > 0


def test_what_fails_does_not_end_the_rest(monkeypatch):
    import run

    def broken(*_, **__):
        raise TypeError('of no use\nat all')

    monkeypatch.setattr('peers.einsum_axial', broken)
    rows = measured(['--cases', 'axial', '--sizes', '1x8x8'])
    assert rows['einsum']['note'] == 'fails: of no use'
    assert 'total' in rows['SDPA on copies']
    args = run.parse_args(['--channels', '32', '--seconds', '-1'])
    runner = run.Runner(args, torch.float32, (1e9, 1e9))
    (row,) = runner.measure('axial', '1x8x8')
    assert row['note'] == 'not begun within -1 s'
    monkeypatch.setitem(run.CASES, 'axial', broken)
    args.seconds = 60
    runner = run.Runner(args, torch.float32, (1e9, 1e9))
    (row,) = runner.measure('axial', '1x8x8')
    assert row['note'] == 'fails: of no use' and runner.wrong


@pytest.fixture
def gpu(monkeypatch):
    """A clock that steps advance, in the place of a GPU's events."""
    import clock

    now = types.SimpleNamespace(ms=0.0, log=[], captures=True)

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = now.ms

        def elapsed_time(self, other):
            return other.at - self.at

    class Graph:
        def replay(self):
            now.log.append('replay')
            now.ms += 1

    def capture(graph):
        if not now.captures:
            raise RuntimeError('not while capturing\nmore')
        return nullcontext()

    stream = types.SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(
        clock.torch,
        'cuda',
        types.SimpleNamespace(
            Event=Event,
            CUDAGraph=Graph,
            graph=capture,
            Stream=lambda: stream,
            current_stream=lambda: stream,
            stream=lambda _: nullcontext(),
            synchronize=lambda: None,
        ),
    )
    monkeypatch.setattr(clock, 'flush', lambda: now.log.append('flush'))
    return now


class Steps:
    """A contestant that takes 20 ms and 50 ms."""

    name, graphs = 'steps', None

    def __init__(self, now):
        self.now = now

    def forward(self):
        self.now.log.append('forward')
        self.now.ms += 20
        return 'out'

    def backward(self, out):
        assert out == 'out'
        self.now.log.append('backward')
        self.now.ms += 50


def test_clock_of_a_gpu(gpu):
    import clock

    steps = Steps(gpu)
    assert clock.gpu_seconds(steps) == {
        'forward': 0.02,
        'total': 0.07,
        'graph forward': 0.001,
        'graph total': 0.001,
    }
    assert gpu.log[:3] == ['flush', 'forward', 'backward']
    del gpu.log[:]
    clock.gpu_seconds(steps)  # nothing is captured again
    one = ['flush', 'replay']
    assert gpu.log == ['flush', 'forward', 'backward', *one, *one]


def test_what_cannot_be_captured_is_timed_without(gpu):
    import clock

    gpu.captures = False
    with pytest.warns(UserWarning, match='steps: no graph: not while cap'):
        assert set(clock.gpu_seconds(Steps(gpu))) == {'forward', 'total'}


def test_table_with_graphs():
    """One contestant without a graph leaves its cells empty."""
    import report

    def row(name, **kinds):
        times = {k: dict(median=v, iqr=0) for k, v in kinds.items()}
        about = dict(case='axial', size='1x8x8', name=name, roofline=0.5)
        return {**about, **times, 'peak': 2**20, 'extra': 2**20}

    rows = [
        row('ours', forward=2e-3, **{'graph forward': 1e-4}),
        row('graph', forward=3e-3, **{'graph forward': 2e-4}),
        row('plain', forward=3e-3),
    ]
    header, lines = report.header(rows), report.lines(rows)
    assert {len(header)} == {len(line) for line in lines}
    column = header.index('forward as a graph ms')
    assert [line[column + 1] for line in lines] == ['1.00', '2.00', '-']
    assert lines[1][column].startswith('0.2000 ')
