# Copyright (c) mmseg_attn contributors.
"""Attention within groups by Triton's kernels, or by torch where they fail."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from ..declare import Backend
from . import device
from .autograd import Engine


def _kind(query, value):
    """What a failure of the kernels is that of."""
    return query.device, query.dtype, query.shape[-1], value.shape[-1]


def triton_engine(
    patterns: Callable, scale: float, bias: Tensor | None = None
) -> Engine:
    """Attention within groups by the kernels.

    Args:
        patterns: From the query to its lines,
            :class:`..kernels.lines.Lines`.
        scale: Factor of the scores.
        bias: Added to the scores of each key, (B, *spatial, heads, 1), fp32.
    """
    from ..kernels import attention

    def attend(query, key, value):
        lines = patterns(query)
        return attention.attend(
            query, key, value, patterns=lines, scale=scale, bias=bias
        )

    def attend_backward(grad, query, key, value, delta, lse, out):
        attention.attend_backward(
            *(grad, query, key, value, delta, lse),
            patterns=patterns(query),
            scale=scale,
            out=out,
            bias=bias,
        )

    return Engine(attend, attend_backward, widens=False)


def first_that_runs(kernels: Engine, other: Engine) -> Engine:
    """The kernels, or the other engine where one of them fails.

    Then one warning says why, and like tensors go to the other one at once.
    """
    from ..kernels.launch import attempt

    def either(name, query_at):
        def run(*tensors, **out):
            query, _, value = tensors[query_at : query_at + 3]
            ran, result = attempt(
                _kind(query, value),
                lambda: (
                    f'{query.dtype} with keys of {query.shape[-1]} and values '
                    f'of {value.shape[-1]} channels'
                ),
                partial(getattr(kernels, name), *tensors, **out),
            )
            return result if ran else getattr(other, name)(*tensors, **out)

        return run

    return Engine(
        either('attend', 0), either('attend_backward', 1), widens=False
    )


def engine_of(
    backend: str,
    patterns: Callable,
    other: Engine,
    scale: float,
    bias: Tensor | None = None,
) -> Engine:
    """The engine of a backend.

    Args:
        backend: 'torch', 'triton', or 'triton or torch', which takes torch
            where a kernel fails.
        patterns, scale, bias: As for :func:`triton_engine`.
        other: The engine of 'torch'.
    """
    if backend == 'torch':
        return other
    kernels = triton_engine(patterns, scale, bias)
    return kernels if backend == 'triton' else first_that_runs(kernels, other)


def triton_backend(
    run: Callable, own_limits: Callable | None = None, by_default: bool = True
) -> Backend:
    """The declaration of an operator's kernels.

    Args:
        run: From 'triton' or 'triton or torch' to the implementation that
            uses these, the latter for ``backend=None``.
        own_limits: The operator's own limits, as in
            :class:`..declare.Backend`, beside those of the kernels.
        by_default: Whether ``backend=None`` takes it on a GPU.
    """

    def limits(query, key, value):
        reason = own_limits and own_limits(query, key, value)
        return reason or _limits(query, key, value)

    return Backend(
        run('triton'),
        _reason,
        limits,
        # Its interpreter, on the CPU, is for tests.
        by_default=lambda x: by_default and device.on_gpu(x),
        default=run('triton or torch'),
    )


def _reason(place):
    from ..kernels import launch

    return launch.reason(place)


def _limits(query: Tensor, key: Tensor, value: Tensor):
    from ..kernels import attention, launch

    reason = attention.limits(query, key, value)
    return reason or launch.failures.get(_kind(query, value))
