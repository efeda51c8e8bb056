# Copyright (c) mmseg_attn contributors.
"""Check that contestants agree, then time them in turns."""

from __future__ import annotations

import os
import random
import statistics
import time
from contextlib import nullcontext
from typing import NamedTuple

import torch
from clock import cpu_seconds, gpu_seconds
from torch.profiler import ProfilerActivity, profile


class Skipped(NamedTuple):
    """A contestant that does not run."""

    name: str
    reason: str


def one_line(*said):
    """Errors and warnings in a line, without places in torch's source."""
    parts = (str(x).split(' (Triggered')[0].splitlines() for x in said)
    text = ' '.join(part[0].strip() for part in parts if part)
    return text if len(text) <= 160 else f'{text[:160]} ...'


def to_nchw(x):
    """(B, H, W, heads, dim) to (B, C, H, W), a view if x is contiguous."""
    return x.flatten(-2).movedim(-1, 1)


def as_it_is(x):
    return x


class Contestant:
    """A callable with its inputs, and a gradient for its output.

    One that is made within autocast runs within it.

    Args:
        name: In the table.
        function: A function or a module.
        inputs: Tensors that get gradients.
        to_common: Maps the output and the inputs' gradients to (B, C, H, W);
            of a contiguous tensor a view.
        parameters: Tensors inside of the function that get gradients, by
            default those of a module.
        work: (floating point operations, bytes) of the forward, if known.
        has_relu: Rounding then flips signs around 0, and with each a gradient
            changes wholly: it is compared as a whole, and less tightly.
        scores: The largest that it keeps in the dtype of its inputs: each is
            rounded by eps / 2 of itself, and by as much its weight. 0 if it
            keeps none.
        is_formula: Whether it is published code of PyTorch's own operators,
            which torch.compile may fuse.
        graphs: On a GPU, kind -> graph; None until they are captured. An empty
            dict if they shall not be.
    """

    def __init__(
        self,
        name,
        function,
        inputs,
        to_common,
        parameters=(),
        work=None,
        has_relu=False,
        scores=0.0,
        is_formula=False,
        graphs=None,
    ):
        self.name = name
        self.function = function
        self.inputs = [x.detach().requires_grad_() for x in inputs]
        self.to_common = to_common
        if isinstance(function, torch.nn.Module):
            parameters = function.parameters()
        self.parameters = tuple(parameters)
        self.work = work
        self.has_relu = has_relu
        self.scores = scores
        self.is_formula = is_formula
        self.graphs = graphs
        self.grad = None
        self.amp = _autocast_dtype(self.inputs[0].device.type)

    def forward(self):
        with self._autocast():
            return self.function(*self.inputs)

    def _autocast(self):
        if self.amp is None:
            return nullcontext()
        return torch.autocast(self.inputs[0].device.type, self.amp)

    def backward(self, out):
        if self.grad is None:
            # The same for all contestants, each in its own layout.
            torch.manual_seed(1)
            self.grad = torch.empty(
                out.shape, dtype=out.dtype, device=out.device
            )
            common = self.to_common(self.grad)
            common.copy_(torch.randn(common.shape, device=out.device))
        wanted = (*self.inputs, *self.parameters)
        return torch.autograd.grad(out, wanted, self.grad)

    def results(self):
        """Output and input gradients as (B, C, H, W); the parameters'.

        The latter as one vector: a bias of the key has a gradient of 0,
        which leaves nothing but rounding to compare.
        """
        out = self.forward()
        grads = self.backward(out)
        count = len(self.inputs)
        results = [self.to_common(x) for x in (out.detach(), *grads[:count])]
        if self.parameters:
            results.append(torch.cat([g.flatten() for g in grads[count:]]))
        return results

    def seconds(self):
        """Kind -> seconds, as :mod:`clock` has them."""
        cuda = self.inputs[0].is_cuda
        return gpu_seconds(self) if cuda else cpu_seconds(self)

    def memory(self):
        """Peak bytes of a forward and backward, and how many are extra.

        The peak is the most allocated at once beyond what existed before.
        Extra is what is left of it without the output and the gradients,
        which must exist whoever computes them.
        """
        needed = 0

        def step():
            nonlocal needed
            out = self.forward()
            grads = self.backward(out)
            needed = sum(x.nbytes for x in (out, *grads))

        peak = peak_bytes(step, self.inputs[0].device)
        return peak, peak - needed


def _autocast_dtype(device_type):
    """Of the autocast that is on, None if there is none."""
    if device_type == 'meta' or not torch.is_autocast_enabled(device_type):
        return None
    return torch.get_autocast_dtype(device_type)


def verify(contestant, expected, tolerance):
    """Raise unless it has the expected results.

    Args:
        contestant: A Contestant.
        expected: The results() of another one.
        tolerance: Largest error of a result, as a part of its largest value.
            One that is all rounding (scores of a single key have gradient 0)
            is measured by the largest of all results.
    """
    largest = max(want.abs().max() for want in expected)
    eps = torch.finfo(contestant.amp or expected[0].dtype).eps
    tolerance = max(tolerance, contestant.scores * eps)
    pairs = zip(contestant.results(), expected, strict=True)
    for i, (got, want) in enumerate(pairs):
        scale = want.abs().max()
        if scale < 4 * eps * largest:
            scale = largest
        error = (got - want).abs().max() / scale
        if i and contestant.has_relu:  # of a gradient, not of the output
            error = (got - want).norm() / want.norm() / 100
        if not error <= tolerance:
            raise AssertionError(
                f'{contestant.name} differs from ours by {error:.1e} of the '
                'largest value: nothing is timed'
            )


def peak_bytes(function, device):
    """Most bytes allocated at once while ``function`` runs."""
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # no chatter
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as p:
        function()
    level = peak = 0
    events = p.profiler.kineto_results.events()
    for event in sorted(
        (e for e in events if e.name() == '[memory]'),
        key=lambda e: e.start_ns(),
    ):
        level += event.nbytes()
        peak = max(peak, level)
    return peak


def time_in_turns(contestants, repeat, budget):
    """Median and quartiles of each kind of run, in seconds.

    The order is drawn anew in each round, so that what else the machine
    does hits all alike. A contestant leaves after ``repeat`` rounds, or when
    it has used its share of ``budget`` seconds, but not before two rounds.
    All should have run before, for their results.

    Returns:
        name -> kind, as :mod:`clock` has them -> summary of its seconds.
    """
    times = {c.name: [] for c in contestants}
    used = dict.fromkeys(times, 0.0)
    share = budget / len(contestants)
    rng = random.Random(0)
    waiting = list(contestants)
    while waiting:
        for c in rng.sample(waiting, len(waiting)):
            start = time.perf_counter()
            times[c.name].append(c.seconds())
            used[c.name] += time.perf_counter() - start
        waiting = [
            c
            for c in waiting
            if len(times[c.name]) < 2
            or len(times[c.name]) < repeat
            and used[c.name] < share
        ]
    return {
        name: {kind: _summary([r[kind] for r in rounds]) for kind in rounds[0]}
        for name, rounds in times.items()
    }


def _summary(values):
    low, median, high = statistics.quantiles(values, n=4, method='inclusive')
    return dict(
        median=median, iqr=high - low, rounds=len(values), best=min(values)
    )
