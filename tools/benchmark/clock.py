# Copyright (c) mmseg_attn contributors.
"""Seconds of a forward, and of this forward with its backward.

On a GPU by CUDA events, behind a cold L2 cache: a buffer larger than it is
written before. Steps are timed as they are called, launch by launch from an
idle GPU, and as a CUDA graph, which leaves the time of the kernels alone.
"""

from __future__ import annotations

import time
import warnings
from functools import cache

import torch

# What is timed, in the order of the tables.
KINDS = {
    'forward': 'forward',
    'total': 'forward+backward',
    'graph forward': 'forward as a graph',
    'graph total': 'forward+backward as a graph',
}
FLUSH_BYTES = 256 * 2**20  # an H200 has 60 MB of L2


def cpu_seconds(contestant):
    """Kind -> seconds of one run."""
    start = time.perf_counter()
    out = contestant.forward()
    middle = time.perf_counter()
    contestant.backward(out)
    end = time.perf_counter()
    return {'forward': middle - start, 'total': end - start}


def gpu_seconds(contestant):
    """Kind -> seconds of one run; without graphs if it cannot be captured."""
    forward, total = lapses(contestant.forward, contestant.backward)
    result = {'forward': forward, 'total': total}
    if contestant.graphs is None:
        contestant.graphs = _graphs(contestant)
    for kind, graph in contestant.graphs.items():
        (result[kind],) = lapses(graph.replay)
    return result


def lapses(*steps):
    """Seconds from the start to the end of each step.

    Each but the first takes what the one before it returned.
    """
    start, *ends = (
        torch.cuda.Event(enable_timing=True) for _ in range(len(steps) + 1)
    )
    flush()
    torch.cuda.synchronize()
    start.record()
    given = ()
    for step, end in zip(steps, ends, strict=True):
        given = (step(*given),)
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1e3 for end in ends]


def flush():
    """Leave nothing of the inputs in the L2 cache."""
    _buffer().zero_()


@cache
def _buffer():
    return torch.empty(FLUSH_BYTES, dtype=torch.int8, device='cuda')


def _graphs(contestant):
    def total():
        return contestant.backward(contestant.forward())

    try:
        return {
            'graph forward': _captured(contestant.forward),
            'graph total': _captured(total),
        }
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        warnings.warn(f'{contestant.name}: no graph: {reason}', stacklevel=2)
        return {}


def _captured(run):
    side = torch.cuda.Stream()  # what a first run prepares is not captured
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph
