# Copyright (c) mmseg_attn contributors.
"""What is checked on a device: ours, the same formula in its dtype, float64.

The error of ours, against float64 on the same rounded numbers, may be so many
times that of the formula in the dtype as the operator declares. Fresh buffers
hold NaN; in torch's deterministic mode a second run must give the same bits.
"""

from __future__ import annotations

import copy
import inspect
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import NamedTuple
from unittest.mock import patch

import torch
from cases import CASES
from measure import Contestant, Skipped, as_it_is, one_line

from mmseg_attn.ops.declare import OPERATORS

# How TF32 is switched: not, by torch's older or by its newer interface.
SWITCHES = 'off', 'allow_tf32', 'fp32_precision'
# Sums of other orders differ by several times the spacing of fp32.
FP32_FLOOR = 16 * 2**-23
# Libraries multiply small matrices in fp32 although TF32 is allowed.
TF32_FLOOR = 4 * 2**-10
ROUNDING = 1e-12  # of a result beside the largest, in float64
LOSS = 2.0, 3.0  # of what declares none
GRAVE = 10  # times the bound: not a matter of rounding


class Job(NamedTuple):
    """Trials of one kind: an operator's cases, a benchmark, or a layer."""

    kind: str
    name: str
    dtype: torch.dtype
    tf32: str = 'off'
    size: str = ''

    def __str__(self):
        tf32 = '' if self.tf32 == 'off' else f'TF32 by {self.tf32}'
        parts = self.name, self.size, str(self.dtype)[6:], tf32
        return ' '.join(filter(None, parts))


class Trial(NamedTuple):
    """Contestants on the same numbers.

    Args:
        label: What is tried.
        ours, theirs: In the dtype that is tried.
        exact: In float64.
        loss: How many times their error the output's and a gradient's may be.
        floor: Added to the bound, as a part of the largest value.
    """

    label: str
    ours: Contestant
    theirs: Contestant
    exact: Contestant
    loss: tuple[float, float] = LOSS
    floor: float = 0.0


class Result(NamedTuple):
    """What came of a trial; ``problem`` is empty if nothing is wrong."""

    label: str
    errors: list[float]
    bounds: list[float]
    problem: str
    grave: bool
    seconds: float

    @property
    def share(self) -> float:
        """Of its bound that the worst error reaches."""
        pairs = zip(self.errors, self.bounds, strict=True)
        return max((e / b for e, b in pairs), default=float('inf'))


def run(job: Job, device: str, channels: int) -> list[Result]:
    """The results of all trials of a job."""
    try:
        with tf32(job.tf32):
            return [judge(t) for t in TRIALS[job.kind](job, device, channels)]
    except Exception as error:  # in the making of a trial
        return [Result(str(job), [], [], one_line(error), True, 0.0)]


@contextmanager
def tf32(switch: str) -> Iterator[None]:
    """Allow TF32 products by one of torch's interfaces."""
    matmul = torch.backends.cuda.matmul
    if switch == 'allow_tf32':
        matmul.allow_tf32 = True
    elif switch == 'fp32_precision':
        matmul.fp32_precision = 'tf32'
    try:
        yield
    finally:
        if switch == 'allow_tf32':
            matmul.allow_tf32 = False
        elif switch == 'fp32_precision':
            matmul.fp32_precision = 'ieee'


@contextmanager
def poisoned() -> Iterator[None]:
    """Fresh buffers hold NaN: what is not written shows."""

    def wrap(make):
        def made(*args, **kwargs):
            x = make(*args, **kwargs)
            return x.fill_(torch.nan) if x.is_floating_point() else x

        return made

    with (
        patch.object(torch, 'empty', wrap(torch.empty)),
        patch.object(torch, 'empty_like', wrap(torch.empty_like)),
        patch.object(torch.Tensor, 'new_empty', wrap(torch.Tensor.new_empty)),
    ):
        yield


@contextmanager
def kernels_must_run() -> Iterator[None]:
    """A kernel that fails is an error, although torch could take over."""
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='.*torch is used instead')
        yield


@contextmanager
def deterministic() -> Iterator[None]:
    """Torch's mode, in which it fills fresh buffers with NaN, too."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def judge(trial: Trial) -> Result:
    """Compare a trial's contestants."""
    start = time.perf_counter()
    errors, bounds, problem, grave = [], [], '', False
    try:
        with poisoned(), kernels_must_run():
            got = trial.ours.results()
        trial.exact.grad = trial.ours.grad.double()
        want = trial.exact.results()
        norm = trial.ours.has_relu
        theirs = _errors(trial.theirs.results(), want, norm)
        bounds = [
            trial.loss[i > 0] * error + trial.floor
            for i, error in enumerate(theirs)
        ]
        errors = _errors(got, want, norm)
        with deterministic():
            first, second = trial.ours.results(), trial.ours.results()
        again = _errors(first, want, norm)
        errors = list(map(max, errors, again))
        if not all(map(torch.equal, first, second)):
            problem, grave = 'not the same twice', True
    except Exception as error:
        problem, grave = one_line(f'{type(error).__name__}: {error}'), True
    for i, (error, bound) in enumerate(zip(errors, bounds, strict=False)):
        if not error <= bound:
            name = f'gradient {i}' if i else 'output'
            problem += f'{name} {error:.1e} beyond {bound:.1e} '
            grave |= not error <= GRAVE * bound
    seconds = time.perf_counter() - start
    label = trial.label
    return Result(label, errors, bounds, problem.strip(), grave, seconds)


def _errors(got, want, norm):
    """Of each result, as a part of its largest value (norm: of its norm).

    One that is all rounding (scores of a single key have gradient 0) is
    measured by the largest of all results.
    """
    largest = max(t.abs().max() for t in want)
    result = []
    for i, (x, t) in enumerate(zip(got, want, strict=True)):
        difference = x.double() - t
        size = t.abs().max()
        if size < ROUNDING * largest:
            error = difference.abs().max() / largest
        elif norm and i:
            error = difference.norm() / t.norm()
        else:
            error = difference.abs().max() / size
        result.append(error.item() if x.isfinite().all() else float('inf'))
    return result


def of_operator(job, device, channels):
    """The declared cases, each backend against the reference."""
    declared = OPERATORS[job.name]
    for case in declared.cases:
        torch.manual_seed(0)
        inputs = [
            x.to(device=device, dtype=job.dtype)
            for x in declared.inputs(case, dtype=torch.float64)
        ]

        def made(name, tensors, case=case):
            function = partial(declared.function, **case.options, backend=name)
            return Contestant(name, function, tensors, as_it_is)

        # None last: where its kernel fails it goes on with torch.
        for name, backend in {**declared.backends, None: None}.items():
            if name == 'reference' or backend and backend.refuses(*inputs):
                continue
            if _is_beyond_the_interpreter(name, inputs[0]):
                continue
            yield Trial(
                f'{job} {case.spatial} heads {case.heads} widths {case.dim} '
                f'{case.value_dim} backend {name}',
                made(name, inputs),
                made('reference', inputs),
                made('reference', [x.double() for x in inputs]),
                declared.loss,
                _floor(job, declared.tolerance),
            )


def _is_beyond_the_interpreter(backend, x):
    """Triton's interpreter multiplies bfloat16's bits as integers."""
    return (
        backend == 'triton'
        and x.device.type == 'cpu'
        and x.dtype == torch.bfloat16
    )


def of_benchmark(job, device, channels):
    """The sizes that are timed, against the first peer that runs."""
    sizes = *map(int, job.size.split('x')), channels
    torch.manual_seed(0)
    ours, *peers = CASES[job.name](*sizes, dtype=job.dtype, device=device)
    peer = next((p for p in peers if isinstance(p, Contestant)), None)
    if isinstance(ours, Skipped) or peer is None:
        return
    label = f'{job} against {peer.name}'
    positions = sizes[1] * sizes[2]
    floor = max(_floor(job), rounding_of_sums(positions, job.dtype))
    yield Trial(label, ours, peer, _exact(ours), floor=floor)


def rounding_of_sums(terms, dtype):
    """What rounding to sum up so many terms may differ by, as a part of it.

    Each step rounds by half of eps at most, with either sign: so many steps
    wander by the root of their number. Which order a library sums in, and in
    how many parts, is not the formula's. Narrow floats are summed in fp32.
    """
    wide = torch.promote_types(dtype, torch.float32)
    return torch.finfo(wide).eps / 2 * terms**0.5


def _exact(contestant):
    """The same in float64, with modules among its arguments."""
    function = copy.deepcopy(contestant.function)
    given = [function, *getattr(function, 'keywords', {}).values()]
    modules = [x.double() for x in given if isinstance(x, torch.nn.Module)]
    return Contestant(
        'exact',
        function,
        [x.double() for x in contestant.inputs],
        contestant.to_common,
        [p for module in modules for p in module.parameters()],
        has_relu=contestant.has_relu,
    )


def of_layer(job, device, channels):
    """A layer against itself with the reference for an operator."""
    from mmseg_attn import layers

    kind = getattr(layers, job.name)
    x = torch.randn(2, channels, 13, 18, device=device).to(job.dtype)
    torch.manual_seed(0)
    ours, theirs = (
        _layer(kind, channels, backend).to(device, job.dtype)
        for backend in (None, 'reference')
    )
    theirs.load_state_dict(ours.state_dict())
    amps = [None, torch.bfloat16] if job.dtype == torch.float32 else [None]
    for layout, amp in product(
        (torch.contiguous_format, torch.channels_last), amps
    ):
        y = x.contiguous(memory_format=layout)
        with torch.autocast(y.device.type, amp, enabled=amp is not None):
            pair = [
                Contestant('layer', layer, [y], as_it_is, has_relu=True)
                for layer in (ours, theirs)
            ]
        label = f'{job} {str(layout)[6:]}'
        if amp:
            label += f' autocast {str(amp)[6:]}'
        floor = _floor(job._replace(dtype=amp or job.dtype))
        yield Trial(label, *pair, _exact(pair[1]), floor=floor)


def _layer(kind, channels, backend):
    """With what makes an untrained layer do something, where it has it."""
    options = dict(gamma_init=0.7, backend=backend)
    if kind.__name__ == 'ChannelizedAxialAttention':
        options['channels'] = channels
    known = inspect.signature(kind).parameters
    options = {k: v for k, v in options.items() if k in known}
    return kind(channels, **options)


def _floor(job, tolerance=1e-12):
    """Beside the bound: on few numbers the formula's error may be luck."""
    if job.dtype == torch.float64:
        return tolerance
    if job.dtype != torch.float32:
        return 4 * torch.finfo(job.dtype).eps
    return FP32_FLOOR if job.tf32 == 'off' else TF32_FLOOR


TRIALS = {
    'operator': of_operator,
    'benchmark': of_benchmark,
    'layer': of_layer,
}
