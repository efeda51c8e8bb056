# Copyright (c) mmseg_attn contributors.
"""Check that contestants agree, then time them in turns."""

from __future__ import annotations

import os
import random
import statistics
import time
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile


class Skipped(NamedTuple):
    """A contestant that does not run."""

    name: str
    reason: str


def to_nchw(x):
    """(B, H, W, heads, dim) to (B, C, H, W), a view if x is contiguous."""
    return x.flatten(-2).movedim(-1, 1)


def as_it_is(x):
    return x


class Contestant:
    """A callable with its inputs, and a gradient for its output.

    Args:
        name: In the table.
        function: A function or a module.
        inputs: Tensors that get gradients.
        to_common: Maps the output and the inputs' gradients to (B, C, H, W);
            of a contiguous tensor a view.
        parameters: Tensors inside of the function that get gradients, by
            default those of a module.
        work: (floating point operations, bytes) of the forward, if known.
        has_relu: Rounding then flips signs around 0, and with each a
            gradient changes wholly: it is compared as a whole, and less
            tightly.
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
        self.grad = None

    def forward(self):
        return self.function(*self.inputs)

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
        """Of a forward, and of this forward with its backward."""
        self._synchronize()
        start = time.perf_counter()
        out = self.forward()
        self._synchronize()
        middle = time.perf_counter()
        self.backward(out)
        self._synchronize()
        return middle - start, time.perf_counter() - start

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

    def _synchronize(self):
        if self.inputs[0].is_cuda:
            torch.cuda.synchronize()


def verify(contestant, expected, tolerance):
    """Raise unless it has the expected results.

    Args:
        contestant: A Contestant.
        expected: The results() of another one.
        tolerance: Largest error of a result, as a part of its largest value.
            One that is all rounding (scores of a single key have gradient
            0) is measured by the largest of all results.
    """
    largest = max(want.abs().max() for want in expected)
    pairs = zip(contestant.results(), expected, strict=True)
    for i, (got, want) in enumerate(pairs):
        scale = want.abs().max()
        if scale < 4 * torch.finfo(want.dtype).eps * largest:
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
    """Median and quartiles of forward and forward+backward, in seconds.

    The order is drawn anew in each round, so that what else the machine
    does hits all alike. A contestant leaves after ``repeat`` rounds, or when
    it has used its share of ``budget`` seconds, but not before two rounds.
    All should have run before, for their results.

    Returns:
        name -> 'forward' and 'total' -> summary of its seconds.
    """
    times = {c.name: [] for c in contestants}
    share = budget / len(contestants)
    rng = random.Random(0)
    waiting = list(contestants)
    while waiting:
        for c in rng.sample(waiting, len(waiting)):
            times[c.name].append(c.seconds())
        waiting = [
            c
            for c in waiting
            if len(times[c.name]) < 2
            or len(times[c.name]) < repeat
            and sum(total for _, total in times[c.name]) < share
        ]
    return {
        name: {
            kind: _summary(values)
            for kind, values in zip(
                ('forward', 'total'), zip(*pairs, strict=True), strict=True
            )
        }
        for name, pairs in times.items()
    }


def _summary(values):
    low, median, high = statistics.quantiles(values, n=4, method='inclusive')
    return dict(
        median=median, iqr=high - low, rounds=len(values), best=min(values)
    )


def machine_peaks(device, dtype):
    """FLOP/s and bytes/s that this machine reaches at its best.

    FLOP/s: of a large matrix product or a 3x3 convolution of 512 channels,
    the better one, in ``dtype``. Bytes/s: read and written by a large copy.
    """
    cuda = torch.device(device).type == 'cuda'
    kwargs = dict(device=device, dtype=dtype)
    n, pixels = (8192, 128) if cuda else (2048, 64)
    matrix = torch.randn(n, n, **kwargs)
    image = torch.randn(1, 512, pixels, pixels, **kwargs)
    kernel = torch.randn(512, 512, 3, 3, **kwargs)
    source = torch.zeros(2**30 if cuda else 2**28, dtype=torch.uint8).to(
        device
    )
    target = torch.empty_like(source)

    def best(function):
        def timed():
            start = time.perf_counter()
            function()
            if cuda:
                torch.cuda.synchronize()
            return time.perf_counter() - start

        with torch.no_grad():
            return min(timed() for _ in range(6))

    product = 2 * n**3 / best(lambda: matrix @ matrix)
    convolution = (2 * 9 * 512**2 * pixels**2) / best(
        lambda: F.conv2d(image, kernel, padding=1)
    )
    moved = 2 * source.nbytes / best(lambda: target.copy_(source))
    return max(product, convolution), moved


def roofline_seconds(work, peaks):
    """The least time for (flops, bytes) at the (FLOP/s, bytes/s) of peaks."""
    return max(w / peak for w, peak in zip(work, peaks, strict=True))
