# Copyright (c) mmseg_attn contributors.
"""What launches declare is what they do, watched in Triton's interpreter.

Each load, store and atomic of a kernel notes the addresses it touches. A
launch must touch as many different bytes as it says, for the count of the
GPU's cost rests on it.
"""

import dataclasses
import itertools
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip('triton', reason='triton is not installed')

import numpy as np
from triton import language as tl
from triton.runtime import interpreter

from mmseg_attn.ops.declare import OPERATORS
from mmseg_attn.ops.kernels import launch, residual

pytestmark = [
    pytest.mark.skipif(
        not launch.INTERPRETED, reason='watches the interpreter'
    ),
    # NumPy on the infinity within a sigmoid, in the interpreter.
    pytest.mark.filterwarnings('ignore:overflow encountered in exp'),
]
BUILDER = interpreter.InterpreterBuilder


class Watch:
    """What each kernel that ran has touched: addresses, and operations."""

    def __init__(self, monkeypatch):
        self.launches = []
        watch = self

        def hook(owner, name):
            plain = getattr(owner, name)

            def replaced(function):
                def call(*args, **kwargs):
                    return function(plain, *args, **kwargs)

                monkeypatch.setattr(owner, name, call)

            return replaced

        @hook(interpreter.GridExecutor, '__call__')
        def _(plain, *args, **kwargs):
            watch.launches.append(SimpleNamespace(read=[], written=[], work=0))
            plain(*args, **kwargs)

        @hook(BUILDER, 'create_masked_load')
        def _(plain, builder, at, mask, *rest, **more):
            watch.note('read', at, mask)
            return plain(builder, at, mask, *rest, **more)

        @hook(BUILDER, 'create_masked_store')
        def _(plain, builder, at, value, mask, *rest, **more):
            watch.note('written', at, mask)
            return plain(builder, at, value, mask, *rest, **more)

        @hook(BUILDER, 'create_atomic_rmw')
        def _(plain, builder, operation, at, value, mask, *rest, **more):
            watch.note('read', at, mask)
            watch.note('written', at, mask)
            return plain(builder, operation, at, value, mask, *rest, **more)

        @hook(BUILDER, 'create_dot')
        def _(plain, builder, a, b, *rest, **more):
            watch.launches[-1].work += 2 * a.data.size * b.data.shape[-1]
            return plain(builder, a, b, *rest, **more)

    def note(self, kind, at, mask):
        inside = np.broadcast_to(mask.data, at.data.shape)
        size = at.get_element_ty().primitive_bitwidth // 8
        touched = np.unique(at.data[inside])
        getattr(self.launches[-1], kind).append((touched, size))


def total(touched):
    """Different bytes of (addresses of elements, size of one)."""
    different = {}
    for at, size in touched:
        different.setdefault(size, []).append(at)
    return sum(
        size * len(np.unique(np.concatenate(parts)))
        for size, parts in different.items()
    )


@pytest.fixture
def watch(monkeypatch):
    return Watch(monkeypatch)


def check(watch, run, whole_tiles=False):
    """Run, and compare each launch with its declaration.

    Args:
        whole_tiles: Whether the tiles of products fit without a rest: else
            the kernels compute more than is declared, with zeros.
    """
    watch.launches.clear()
    with launch.recorded() as declared:
        run()
    assert len(watch.launches) == len(declared) > 0
    for did, said in zip(watch.launches, declared, strict=True):
        found = total(did.read), total(did.written)
        assert found == (said.read, said.written), said.name
        assert did.work >= said.flops, said.name
        if whole_tiles:
            assert did.work == said.flops, said.name


@launch.jit
def scaled(x, y, count, scale, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(y + at, scale * tl.load(x + at, at < count), at < count)


@launch.jit
def added(x, y, count, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.atomic_add(y + at % 7, tl.load(x + at, at < count, 0.0), at < count)


@launch.jit
def multiplied(x, y, N: tl.constexpr):
    rows = tl.arange(0, N)
    at = rows[:, None] * N + rows[None, :]
    a = tl.load(x + at)
    tl.store(y + at, tl.dot(a, a, input_precision='ieee'))


@launch.jit
def described(x, y, N: tl.constexpr):
    y.store([0, 0], x.load([0, 0]))


X, Y = torch.ones(20), torch.empty(20)


def run_scaled(reads, writes):
    launch.launch(
        scaled, [3], X, Y, 20, 2.0, on=X, reads=reads, writes=writes, N=8
    )


def test_each_element_counts_once(watch):
    check(watch, lambda: run_scaled([X], [Y]))

    def run():  # seven sums, each read and written by every program
        sums = Y[:7]
        launch.launch(
            added, [3], X, Y, 20, on=X, reads=[X, sums], writes=[sums], N=8
        )

    check(watch, run)


@pytest.mark.parametrize(
    ('reads', 'writes'),
    [
        ([], [Y]),
        ([X, Y], [Y]),
        ([X], []),
        ([X[:19]], [Y]),
        ([X.half()], [Y]),
    ],
)
def test_a_wrong_declaration_is_seen(watch, reads, writes):
    with pytest.raises(AssertionError):
        check(watch, lambda: run_scaled(reads, writes))


def test_a_launch_past_the_counter_is_seen(watch):
    def run():
        run_scaled([X], [Y])
        scaled[(3,)](X, Y, 20, 2.0, N=8)

    with pytest.raises(AssertionError):
        check(watch, run)


@pytest.mark.parametrize('flops', [2 * 16**3, 16**3, 4 * 16**3])
def test_operations(watch, flops):
    x, y = torch.ones(16, 16), torch.empty(16, 16)

    def run():
        launch.launch(
            multiplied, [1], x, y, on=x, reads=[x], writes=[y], flops=flops,
            N=16,
        )  # fmt: skip

    if flops == 2 * 16**3:
        check(watch, run, whole_tiles=True)
    else:
        with pytest.raises(AssertionError):
            check(watch, run, whole_tiles=True)


def test_tensor_descriptors_touch_what_is_inside(watch):
    from triton.tools.tensor_descriptor import TensorDescriptor

    x, y = torch.ones(6, 8), torch.empty(6, 8)
    block = [8, 8]  # two rows more than there are

    def run():
        pair = [TensorDescriptor.from_tensor(t, block) for t in (x, y)]
        launch.launch(described, [1], *pair, on=x, reads=[x], writes=[y], N=8)

    check(watch, run)


def problems():
    """Operators with kernels on small cases, and on lines of three tiles."""
    for operator in OPERATORS.values():
        backend = operator.backends.get('triton')
        for case in operator.cases if backend else ():
            # Kernels take a width of 8 or more; 9 leaves a rest.
            case = dataclasses.replace(case, dim=max(9, case.dim))
            refused = backend.refuses(*operator.inputs(case))
            if case.positions < 500 and not refused:
                yield operator, case
            if len(case.spatial) == 1:
                yield (
                    operator,
                    dataclasses.replace(case, spatial=(140,), batch=1),
                )


def padded(x):
    """The same values in wider rows, aligned to 16 bytes."""
    return torch.nn.functional.pad(x, (16, 16))[..., 16:-16]


def step(operator, case, dtype, wanted, pad=False):
    """A forward and backward by the kernels.

    Args:
        wanted: Which inputs get gradients.
        pad: Whether rows of channels lie apart.
    """
    inputs = [x.to(dtype) for x in operator.inputs(case)]
    if pad:
        inputs = map(padded, inputs)
    inputs = [x.requires_grad_(i in wanted) for i, x in enumerate(inputs)]
    out = operator.function(*inputs, backend='triton', **case.options)
    leaves = [x for x in inputs if x.requires_grad]
    torch.autograd.grad(out, leaves, torch.ones_like(out))


ALL = (0, 1, 2)


DTYPES = [torch.float32, torch.float16]


@pytest.mark.parametrize(
    ('operator', 'case', 'dtype'),
    [
        pytest.param(*problem, dtype, id=f'{problem[0].name}-{i}-{dtype}')
        for i, (problem, dtype) in enumerate(
            zip(problems(), itertools.cycle(DTYPES))  # noqa: B905, endless
        )
    ],
)
def test_operators_declare_what_they_touch(watch, operator, case, dtype):
    check(watch, lambda: step(operator, case, dtype, ALL))


@pytest.mark.parametrize('deterministic', [False, True])
@pytest.mark.parametrize(
    'wanted', [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), ALL], ids=str
)
def test_part_of_the_gradients(watch, monkeypatch, wanted, deterministic):
    operator = OPERATORS['criss_cross_attention']
    case = dataclasses.replace(operator.cases[0], dim=9)
    torch.use_deterministic_algorithms(deterministic)
    try:
        check(watch, lambda: step(operator, case, torch.float16, wanted))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize('dtype', DTYPES)
def test_padding_between_rows_is_not_touched(watch, dtype):
    operator = OPERATORS['criss_cross_attention']
    case = dataclasses.replace(operator.cases[0], dim=16, value_dim=24)
    check(watch, lambda: step(operator, case, dtype, ALL, pad=True))


def test_operations_of_whole_tiles(watch):
    operator = OPERATORS['criss_cross_attention']
    case = dataclasses.replace(
        operator.cases[0],
        spatial=(64, 64),
        heads=1,
        dim=16,
        value_dim=64,
        batch=1,
    )
    check(
        watch,
        lambda: step(operator, case, torch.float16, ALL),
        whole_tiles=True,
    )


@pytest.mark.parametrize('channels_last', [False, True])
def test_residual_of_layers(watch, channels_last):
    """With a rest of pixels and of channels."""
    gamma, rows = torch.tensor(0.5), torch.ones(2, 5, 14, 1, 70)
    x = torch.ones(2, 70, 5, 14, dtype=torch.float16)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    check(watch, lambda: residual.add_residual(x, gamma, rows))
    for more in itertools.product(
        [None, torch.empty_like(rows), rows], [None, torch.empty_like(x)]
    ):
        given = x, gamma, rows, *more
        check(watch, lambda given=given: residual.residual_backward(*given))
