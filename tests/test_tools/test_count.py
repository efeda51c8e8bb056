# Copyright (c) mmseg_attn contributors.
"""The counter counts what was counted by hand, and ours costs no more.

All runs on the meta device. The expected bytes are written out from the
sizes: n elements read and m written of so many bytes.
"""

import functools
import itertools
import json
import math
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

# Its modules find each other beside the script.
sys.path.append(str(Path(__file__).resolve().parents[2] / 'tools/benchmark'))

pytest.importorskip('matplotlib')
pytest.importorskip('rich')
pytest.importorskip('triton')
pytest.importorskip('counter', reason='not in a checkout')

import count
from cases import CASES
from counter import counted
from measure import Contestant, as_it_is

from mmseg_attn.ops import declare
from mmseg_attn.ops.kernels import launch

HALF, FULL = torch.bfloat16, torch.float32


def meta(*shape, dtype=FULL, **kwargs):
    return torch.empty(shape, dtype=dtype, device='meta', **kwargs)


def costs_of(function, *tensors):
    with counted() as costs:
        # Held, for what is freed would not count to the peak.
        result = function(*tensors)
    del result
    return costs


def summary(costs):
    """Launches, bytes read and written."""
    return (
        len(costs.calls),
        sum(c.read for c in costs.calls),
        sum(c.written for c in costs.calls),
    )


X = meta(4, 6, 10)


@pytest.mark.parametrize(
    ('function', 'expected'),
    [
        # x is 240 elements, 960 bytes.
        (lambda x: x * x * x, (2, 960 + 1920, 1920)),
        (lambda x: x.mul_(2), (1, 960, 960)),
        (lambda x: x.mul_(x), (1, 960, 960)),
        (lambda x: x.softmax(-1), (1, 960, 960)),
        (lambda x: x.sum((1, 2)), (1, 960, 16)),
        (lambda x: x[:, 1:3].transpose(0, 1).unsqueeze(-1), (0, 0, 0)),
        (lambda x: x[:, 1:3].contiguous(), (1, 320, 320)),
        (lambda x: x.contiguous(), (0, 0, 0)),
        (lambda x: x.reshape(24, 10), (0, 0, 0)),
        (lambda x: x.mT.reshape(-1), (1, 960, 960)),
        (lambda x: x.to(HALF), (1, 960, 480)),
        (lambda x: torch.zeros_like(x), (1, 0, 960)),
        (lambda x: torch.empty_like(x), (0, 0, 0)),
        (lambda x: x.fill_(1), (1, 0, 960)),
        (lambda x: x.copy_(x[:, :1]), (1, 160, 960)),
        (lambda x: x + x[:, :1].expand_as(x), (1, 960 + 160, 960)),
        (lambda x: torch.cat([x, x + 1], 1), (2, 960 + 1920, 960 + 1920)),
        # a copy, then filled where a mask of 60 bytes says so
        (
            lambda x: x.masked_fill(meta(6, 10, dtype=torch.bool), 0),
            (2, 960 + 960 + 60, 1920),
        ),
        # zeros of (4, 6, 14), then a copy
        (lambda x: F.pad(x, (1, 3)), (2, 960, 1344 + 960)),
        (lambda x: F.pad(x, (-1, -3)), (1, 576, 576)),
    ],
)
def test_bytes_of_elementwise_calls(function, expected):
    assert summary(costs_of(function, X)) == expected


# (5, 6, 7) times (5, 7, 8), in fp32: 840, 1120 and 960 bytes.
A, B, SUM = meta(5, 6, 7), meta(5, 7, 8), meta(5, 6, 8)
PRODUCT = 2 * 5 * 6 * 7 * 8


@pytest.mark.parametrize(
    ('function', 'expected'),
    [
        (lambda: A @ B, (1, 840 + 1120, 960)),
        (lambda: torch.bmm(A, B, out=SUM), (1, 840 + 1120, 960)),
        (
            lambda: torch.bmm(meta(5, 7, 6).mT, meta(5, 8, 7).mT),
            (1, 840 + 1120, 960),
        ),
        # one matrix for all of the batch
        (lambda: A @ B[:1].expand(5, 7, 8), (1, 840 + 224, 960)),
        # the summand is copied to where the sum will be, which is then read
        (
            lambda: torch.baddbmm(SUM, A, B),
            (2, 960 + 960 + 840 + 1120, 1920),
        ),
        (lambda: torch.baddbmm(SUM, A, B, beta=0), (1, 840 + 1120, 960)),
        (lambda: SUM.baddbmm_(A, B), (1, 960 + 840 + 1120, 960)),
        # neither rows nor columns have a stride of 1
        (
            lambda: torch.bmm(meta(5, 6, 7, 2)[..., 0], B),
            (2, 840 + 840 + 1120, 840 + 960),
        ),
        (
            lambda: torch.bmm(A, B, out=meta(5, 6, 8, 2)[..., 0]),
            (2, 840 + 1120 + 960, 1920),
        ),
    ],
)
def test_products(function, expected):
    costs = costs_of(function)
    assert summary(costs) == expected
    assert costs.flops == {'product float32': PRODUCT}


def test_bias_of_a_linear_layer_is_added_by_the_product():
    costs = costs_of(F.linear, meta(6, 7), meta(8, 7), meta(8))
    assert summary(costs) == (1, 4 * (42 + 56 + 8), 4 * 48)
    matrix = costs_of(torch.addmm, meta(6, 8), meta(6, 7), meta(7, 8))
    assert summary(matrix) == (2, 4 * (48 + 48 + 42 + 56), 4 * 96)


def test_product_of_halves():
    a, b = (x.to(HALF) for x in (A, B))
    costs = costs_of(lambda: torch.bmm(a, b, out_dtype=FULL))
    assert summary(costs) == (1, 420 + 560, 960)
    assert costs.flops == {'product bfloat16': PRODUCT}


def attention(dtype, width, value_width, queries=32, keys=64):
    q = meta(2, 3, queries, width, dtype=dtype)
    k = meta(2, 3, keys, width, dtype=dtype)
    v = meta(2, 3, keys, value_width, dtype=dtype)
    qkv = [x.requires_grad_() for x in (q, k, v)]
    with counted() as costs:
        out = F.scaled_dot_product_attention(*qkv)
    grad = torch.empty_like(out)
    with counted() as back:
        torch.autograd.grad(out, qkv, grad)
    return costs, back


@pytest.mark.parametrize(
    ('dtype', 'value_width'), [(HALF, 16), (HALF, 40), (HALF, 136), (FULL, 16)]
)
def test_fused_attention(dtype, value_width):
    forward, back = attention(dtype, 16, value_width)
    size, pairs = dtype.itemsize, 2 * 3 * 32 * 64
    keys = size * 2 * 3 * 64 * (16 + value_width)
    queries, out = (size * 2 * 3 * 32 * n for n in (16, value_width))
    lse = 4 * 2 * 3 * 32
    tiny = 32  # the state of the dropout
    launches, read, written = summary(forward)
    assert (launches, read) == (1, queries + keys)
    assert 0 <= written - (out + lse) <= tiny
    kind = f'attention {str(dtype)[6:]}'
    if value_width > 128:
        kind = f'wide {kind}'
    assert forward.flops == {kind: 2 * pairs * (16 + value_width)}
    if value_width > 128:
        kind = kind.replace('attention', 'attention backward')
    # In fp32 <gradient, output> is a product and a sum of its own.
    apart = dtype == FULL
    launches, read, written = summary(back)
    assert launches == 1 + 2 * apart
    assert written == queries + keys + apart * (out + out // value_width)
    read -= apart * 3 * out
    assert 0 <= read - (queries + keys + 2 * out + lse) <= tiny
    assert back.flops == {kind: 2 * pairs * (3 * 16 + 2 * value_width)}


def test_sums_that_wide_attention_keeps_in_memory():
    def sums(costs):
        kept = [c for c in costs if c.name == 'sums kept in memory']
        assert all(c.read == c.written for c in kept)
        return sum(c.read for c in kept)

    forward, back = attention(HALF, 16, 136, queries=130, keys=140)
    assert sums(forward.calls) == 4 * 2 * 3 * 130 * 136
    assert sums(back.calls) == 4 * 2 * 3 * 140 * (16 + 136)
    forward, back = attention(HALF, 16, 136, queries=128, keys=128)
    assert sums(forward.calls) == sums(back.calls) == 0
    forward, back = attention(HALF, 16, 128, queries=130, keys=140)
    assert sums(forward.calls) == sums(back.calls) == 0
    forward, back = attention(FULL, 16, 32, queries=130, keys=140)
    assert sums(forward.calls) == 0
    assert sums(back.calls) == 4 * 2 * 3 * 140 * (16 + 32)


def test_attention_that_torch_does_not_fuse():
    forward, _ = attention(HALF, 12, 20)  # not of 16 bytes
    assert not any('attention' in kind for kind in forward.flops)


def test_convolution_and_norm():
    x = meta(2, 3, 4, 5, requires_grad=True)
    conv = torch.nn.Conv2d(3, 8, 1, device='meta')
    size, mapped, weight = 4 * 120, 4 * 320, 4 * 24
    with counted() as costs:
        y = conv(x)
    # the bias is a launch of its own
    read = size + weight + mapped + 32
    assert summary(costs) == (2, read, 2 * mapped)
    assert costs.flops == {'product float32': 2 * 320 * 3}
    grad = torch.empty_like(y)
    with counted() as costs:
        torch.autograd.grad(y, [x, *conv.parameters()], grad)
    read = mapped + weight + mapped + size + mapped
    assert summary(costs) == (3, read, size + weight + 32)
    assert costs.flops == {'product float32': 2 * 2 * 320 * 3}
    norm = torch.nn.BatchNorm2d(3, track_running_stats=False, device='meta')
    launches, read, written = summary(costs_of(norm, x))
    assert (launches, read, written) == (2, 2 * size + 24, size + 24)


def test_convolutions_keep_the_memory_format():
    x = meta(2, 3, 4, 5, requires_grad=True)
    x = x.to(memory_format=torch.channels_last)
    conv = torch.nn.Conv2d(3, 8, 1, device='meta')
    with counted() as costs:
        y = conv(x)
        (dx,) = torch.autograd.grad(y, x, torch.empty_like(y))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert dx.stride() == x.stride()
    assert not any('copy' in call.name for call in costs.calls)


def test_peak_memory_of_a_chain():
    def chain(x):  # 960 bytes each
        a = x + 1
        b = a + 1
        del a
        c = b + 1
        return c.sum()

    costs = costs_of(chain, X)
    assert costs.peak == 2 * 960 + 4  # b, c and the sum

    def views(x):
        a = (x + 1).view(-1)[3:]
        return a.add_(1)

    assert costs_of(views, X).peak == 960

    def kept(x):
        return [x + i for i in range(5)]

    assert costs_of(kept, X).peak == 5 * 960


def test_peak_counts_what_autograd_keeps():
    x = meta(1000, requires_grad=True)
    exp = Contestant('ours', lambda x: x.exp().exp(), [x], as_it_is)
    # The inner exp, and its gradient while that of x is made.
    assert count.count(exp)['extra'] == 2 * 4000
    plain = Contestant('ours', lambda x: x * 2, [x], as_it_is)
    found = count.count(plain)
    assert found['extra'] == 0
    assert found['needed'] == 3 * 4000
    assert found['launches'] == [1, 1]
    assert found['bytes'] == 4 * 4000
    assert found['seconds'] == pytest.approx(4 * 4000 / 2.5e12)


def copy_kernel():
    pass


def declared(x, reads):
    out = torch.empty_like(x)
    launch.launch(
        copy_kernel, (1,), on=x, reads=[reads], writes=[out], flops=7,
        precision='tf32x3',
    )  # fmt: skip
    return out


def test_launches_cost_what_they_declare():
    costs = costs_of(declared, X, X)
    assert summary(costs) == (1, 960, 960)
    assert costs.flops == {'kernel tf32x3 float32': 7}
    assert costs.peak == 960
    assert count.seconds(costs) == pytest.approx(1920 / 2.5e12 + 7 / 50e12)


def test_autocast_without_a_gpu():
    conv = torch.nn.Conv2d(6, 6, 1, device='meta')
    x = meta(2, 6, 4, 4, dtype=HALF)
    with counted() as costs, torch.autocast('meta', HALF):
        y = conv(x)
        weights = y.softmax(-1)
        z = torch.einsum('bchw,bciw->bhi', weights, y)
    assert (y.dtype, weights.dtype, z.dtype) == (HALF, FULL, HALF)
    assert set(costs.flops) == {'product bfloat16'}


def fake(*functions):
    """A case of contestants on one map."""

    def case(batch, height, width, channels, **kwargs):
        for name, function in zip(('ours', 'peer'), functions, strict=True):
            x = torch.randn(batch, channels, height, width, **kwargs)
            yield Contestant(name, function, [x], as_it_is)

    return case


def run(tmp_path, monkeypatch, *functions):
    monkeypatch.setitem(CASES, 'linear', fake(*functions))
    options = '--cases linear --sizes 2x3x4 --dtypes float16 --channels 5'
    count.main([*options.split(), '--calls', '2', '--out', str(tmp_path)])


def once(x):
    return x * 2


def twice(x):
    return x * 2 * 2


def test_tool_is_content_with_less(tmp_path, monkeypatch, capsys):
    run(tmp_path, monkeypatch, once, twice)
    assert '0 of 1 cases above' in capsys.readouterr().out
    ours, peer = json.loads((tmp_path / 'counted.json').read_text())['rows']
    assert ours['launches'] == [1, 1] and peer['launches'] == [2, 2]
    assert ours['bytes'] == 4 * 240 and peer['bytes'] == 8 * 240
    text = (tmp_path / 'counted.md').read_text()
    assert 'Counted, not timed' in text
    assert '| linear | 2x3x4 | float16 | peer | 2 + 2 |' in text
    assert '| 2.00 |' in text


def test_tool_fails_where_a_peer_needs_less(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match='1 of 1 cases above'):
        run(tmp_path, monkeypatch, twice, once)
    with pytest.raises(SystemExit, match='1 of 1 cases above'):
        run(tmp_path, monkeypatch, lambda x: x @ x.double(), once)
    assert 'fails: ' in (tmp_path / 'counted.md').read_text()


def test_a_peer_that_does_not_fit_the_card_is_none(monkeypatch):
    def large(x):
        return x + meta(3 * 10**10).sum()

    monkeypatch.setitem(CASES, 'linear', fake(twice, large))
    ours, peer = count.measure('linear', '2x3x4', 'float32', 5)
    assert peer['note'] == 'needs 120 GB'
    assert not count.is_above([ours, peer])


measure = functools.cache(count.measure)
SIZES = count.SIZES.split()
DTYPES = count.DTYPES.split()
PLAIN = {
    name.removesuffix('_attention')
    for name, operator in declare.OPERATORS.items()
    if operator.plain
}
HELD = [name for name in CASES if name not in PLAIN]
LAYERS = [name for name in HELD if name.endswith('_layer')]
OPERATORS = [name for name in HELD if name not in LAYERS]


def problems(cases, sizes=SIZES):
    """Parameters (case, size, dtype)."""
    return list(itertools.product(cases, sizes, DTYPES))


# Where ours is flash attention, in 16 bits: the peer that holds all scores is
# predicted faster, and was for groups of 2048 (11.0 against 10.2 ms on an
# H100); it takes twice the memory of ours and more. How many times as long.
FLASH = {
    ('interlaced_sparse', '1x256x512'): 1.1,
    ('non_local', '2x97x97'): 1.7,
    ('non_local', '1x128x256'): 1.7,
}


@pytest.mark.slow
@pytest.mark.parametrize(('case', 'size', 'dtype'), problems(HELD))
def test_ours_is_not_above_its_best_peer(case, size, dtype):
    rows = measure(case, size, dtype)
    assert rows[0]['name'] == 'ours'
    if (case, size) in FLASH and dtype != 'float32':
        least = min(row.get('seconds', math.inf) for row in rows[1:])
        assert 1 < rows[0]['seconds'] / least < FLASH[case, size]
    else:
        assert not count.is_above(rows)


@pytest.mark.parametrize(
    ('case', 'size', 'dtype'), problems(HELD, sizes=['1x256x512'])
)
def test_launches_do_not_grow_with_the_map(case, size, dtype):
    small, large = (
        measure(case, x, dtype)[0]['launches'] for x in ('1x97x97', size)
    )
    # The partition leaves a rest of 97, and rows of scores are not aligned;
    # large groups are copied for flash attention.
    copies = 8 if case == 'interlaced_layer' and dtype != 'float32' else 0
    assert sum(large) <= sum(small) + copies


@pytest.mark.parametrize(('case', 'size', 'dtype'), problems(OPERATORS))
def test_extra_memory_of_operators(case, size, dtype):
    ours = measure(case, size, dtype)[0]
    assert ours['extra'] <= 1.3 * ours['needed']


@pytest.mark.parametrize(('case', 'size', 'dtype'), problems(LAYERS))
def test_extra_memory_of_layers(case, size, dtype):
    """Their convolutions keep their inputs, whoever computes them."""
    ours, *peers = measure(case, size, dtype)
    counted = [peer['extra'] for peer in peers if 'extra' in peer]
    assert ours['extra'] <= min(counted)
