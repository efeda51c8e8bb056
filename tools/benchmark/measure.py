# Copyright (c) mmseg_attn contributors.
"""Check that contestants agree, then time them in turns."""

from __future__ import annotations

import random
import statistics
import time

import torch
from torch.profiler import ProfilerActivity, profile


class Contestant:
    """A callable with its inputs, and a gradient for its output."""

    def __init__(self, name, function, inputs, to_common):
        self.name = name
        self.function = function
        self.inputs = [x.requires_grad_() for x in inputs]
        self.to_common = to_common
        self.parameters = (
            list(function.parameters())
            if isinstance(function, torch.nn.Module)
            else []
        )
        self.grad = None

    def forward(self):
        return self.function(*self.inputs)

    def step(self):
        out = self.forward()
        if self.grad is None:
            # The same for all contestants, in the layout of the output.
            torch.manual_seed(1)
            self.grad = torch.empty_like(out)
            common = self.to_common(self.grad)
            common.copy_(torch.randn(common.shape))
        return out, torch.autograd.grad(
            out, self.inputs + self.parameters, self.grad
        )

    def results(self):
        """Output and input gradients as (B, C, H, W); the parameters'.

        The latter as one vector: a bias of the key has a gradient of 0,
        which leaves nothing but rounding to compare.
        """
        out, grads = self.step()
        maps = [self.to_common(x) for x in (out, *grads[: len(self.inputs)])]
        rest = grads[len(self.inputs) :]
        return maps + (
            [torch.cat([g.flatten() for g in rest])] if rest else []
        )


def verify(contestants, tolerance):
    """Raise unless all agree with the last, within tolerance of its scale."""
    *others, truth = contestants
    expected = truth.results()
    for other in others:
        for got, want in zip(other.results(), expected, strict=True):
            error = (got - want).abs().max() / want.abs().max()
            if not error <= tolerance:
                raise AssertionError(
                    f'{other.name} differs from {truth.name} by '
                    f'{error:.1e} of the largest value: nothing is timed'
                )


def _synchronize(device):
    if device == 'cuda':
        torch.cuda.synchronize()


def _seconds(function, device):
    _synchronize(device)
    start = time.perf_counter()
    function()
    _synchronize(device)
    return time.perf_counter() - start


def memory_bytes(contestant, device):
    """Peak memory of a step, and how much of it is extra.

    The peak is the most allocated at once beyond what existed before. Extra
    is what is left of it without the output and the gradients, which must
    exist whoever computes them.
    """
    peak = _peak_bytes(contestant.step, device)
    out, grads = contestant.step()
    return peak, peak - sum(x.nbytes for x in (out, *grads))


def _peak_bytes(function, device):
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
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


def time_in_turns(contestants, device, repeat, budget):
    """Median and quartiles of forward and forward+backward, in seconds.

    The order is drawn anew in each round, so that what else the machine
    does hits all alike. Stops after ``repeat`` rounds, or after ``budget``
    seconds but not before three rounds.
    """
    times = {c.name: {'forward': [], 'total': []} for c in contestants}
    for c in contestants:
        c.step()  # warm up
    end = time.monotonic() + budget
    rng = random.Random(0)
    for rounds in range(repeat):
        if rounds >= 3 and time.monotonic() > end:
            break
        for c in rng.sample(contestants, len(contestants)):
            record = times[c.name]
            record['forward'].append(_seconds(c.forward, device))
            record['total'].append(_seconds(c.step, device))
    return {
        name: {kind: _summary(values) for kind, values in record.items()}
        for name, record in times.items()
    }


def _summary(values):
    low, median, high = statistics.quantiles(values, n=4)
    return dict(
        median=median, iqr=high - low, rounds=len(values), best=min(values)
    )
