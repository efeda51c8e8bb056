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


def triton_engine(patterns: Callable, scale: float, bias=None) -> Engine:
    """By the kernels.

    Args:
        patterns: Query -> its lines, :class:`..kernels.lines.Lines`.
        scale: Factor of the scores.
        bias: Of each key's scores, (B, *spatial, heads, 1) in fp32, or None.
    """
    from ..kernels import attention

    def attend(query, key, value):
        lines = patterns(query)
        return attention.attend(query, key, value, lines, scale, bias)

    def attend_backward(grad, query, key, value, delta, lse, out):
        attention.attend_backward(
            grad, query, key, value, delta, lse, patterns(query), scale, out,
            bias,
        )  # fmt: skip

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
                f'{query.dtype} with keys of {query.shape[-1]} and values of '
                f'{value.shape[-1]} channels',
                partial(getattr(kernels, name), *tensors, **out),
            )
            return result if ran else getattr(other, name)(*tensors, **out)

        return run

    return Engine(
        either('attend', 0), either('attend_backward', 1), widens=False
    )


def engine_of(
    backend: str, patterns: Callable, other: Engine, scale: float, bias=None
) -> Engine:
    """The engine of a backend.

    Args:
        backend: 'torch', 'triton', or 'triton or torch', which takes torch
            where a kernel fails.
        patterns, scale, bias: As of :func:`triton_engine`.
        other: That of 'torch'.
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
        run: 'triton' or 'triton or torch' -> the implementation that uses
            these, the latter for ``backend=None``.
        own_limits: As of :class:`..declare.Backend`, beside the kernels'.
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
