# Copyright (c) mmseg_attn contributors.
"""Attention along one or several axes of a grid.

Along one it is axial attention, along all criss-cross attention. This file
turns axes into patterns of groups (:mod:`.groups`) and offers the same sum
to autograd, to torch.compile as an operator, and to exporters as plain steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial, reduce

import torch
from torch import Tensor, library

from ..declare import Backend
from . import device, groups, lines
from .autograd import (
    Attention,
    Engine,
    accumulator,
    backward,
    dots,
    forward,
    no_autocast,
    pixel_rows,
    widen,
)
from .engines import engine_of, triton_backend

# Up to so many scores plain steps were faster on a CPU than blocks: 0.80
# against 1.52 ms at 1x8x8, 1.60 against 2.96 ms at 1x16x16 (512 channels).
# Along one axis up to four times as many: 2.84 against 3.03 ms at 1x32x32.
PLAIN_SCORES = 2**13

# An older torch does not tell: its exports hold the custom operator.
told = getattr(torch.compiler, 'is_exporting', lambda: False)
# Before torch 2.13 Dynamo takes each compilation for an export:
# https://github.com/pytorch/pytorch/issues/176347.
DYNAMO_TELLS = torch.__version__ >= (2, 13)


def is_exporting() -> bool:
    """Whether the sum is to be made of standard operators.

    Where Dynamo does not tell an export from a compilation it gets the custom
    operator: plain steps would keep all scores, and run no kernel.
    """
    if torch.compiler.is_dynamo_compiling() and not DYNAMO_TELLS:
        return False
    return told()


def used_axes(
    axes: Sequence[int], shape: Sequence[int]
) -> list[tuple[int, bool]]:
    """Axes to visit, and whether each leaves out the query's own position.

    The own position is counted with the first axis. The last spatial axis
    comes first because its lines are contiguous; later axes of length 1 hold
    nothing but the own position.
    """
    first, *others = sorted(axes, reverse=True)
    return [(first, False)] + [(a, True) for a in others if shape[1 + a] > 1]


def _patterns(axes, shape):
    return [
        (partial(lines.along, axis), 1, exclude_self)
        for axis, exclude_self in used_axes(axes, shape)
    ]


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    axes: Sequence[int],
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Attention of each position over its lines along the given axes.

    Args:
        query, key: (B, *spatial, heads, dim), pixels being rows of a matrix.
        value: (B, *spatial, heads, value_dim).
        axes: Spatial axes, counted from 0. The own position counts once.
        scale: Factor of the scores.

    Returns:
        The output, of value's shape, and the log-sum-exp of the scores,
        (B, *spatial, heads, 1).
    """
    patterns = _patterns(axes, query.shape)
    return groups.attend(query, key, value, patterns=patterns, scale=scale)


def attend_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    delta: Tensor,
    lse: Tensor,
    *,
    axes: Sequence[int],
    scale: float,
    out: Sequence[Tensor | None],
) -> None:
    """Write the gradients of :func:`attend` to ``out``.

    The arguments are those of :func:`.groups.attend_backward`, with axes for
    patterns.
    """
    groups.attend_backward(
        *(grad, query, key, value, delta, lse),
        patterns=_patterns(axes, query.shape),
        scale=scale,
        out=out,
    )


def axis_engine(axes: Sequence[int], scale: float, backend: str) -> Engine:
    """Attention along axes without autograd, made once for like options.

    Args:
        axes, scale: As in :func:`attend`.
        backend: As in :func:`.engines.engine_of`.
    """
    return _axis_engine(tuple(axes), scale, backend)


@lru_cache(maxsize=256)
def _axis_engine(axes, scale, backend):
    @lru_cache(maxsize=256)
    def lines_of(shape):
        from ..kernels import lines

        return [
            lines.along(shape, axis, again)
            for axis, again in used_axes(axes, shape)
        ]

    def patterns(query):
        return lines_of(query.shape)

    torchs = Engine(
        partial(attend, axes=axes, scale=scale),
        partial(attend_backward, axes=axes, scale=scale),
    )
    return engine_of(backend, patterns, torchs, scale)


def axis_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    axes: Sequence[int],
    scale: float,
    backend: str,
) -> Tensor:
    """Attention along axes for autograd, compilers and exporters.

    Args:
        query, key, value: As in :func:`attend`, with any strides.
        axes, scale: As in :func:`attend`.
        backend: As in :func:`axis_engine`.
    """
    if torch.jit.is_tracing() or is_exporting():
        with no_autocast(query):
            return _exportable(query, key, value, axes, scale)
    if torch.compiler.is_compiling():
        return _operator(query, key, value, axes, scale, backend)[0]
    keys = sum(query.shape[1 + axis] for axis in axes)
    if backend == 'torch' and not device.on_gpu(query):
        few = PLAIN_SCORES if len(axes) > 1 else 4 * PLAIN_SCORES
        if query.shape[:-1].numel() * keys <= few:
            with no_autocast(query):
                return _exportable(query, key, value, axes, scale)
        if len(axes) == 1:
            return lines.attention(query, key, value, axes[0], scale)
    engine = axis_engine(axes, scale, backend)
    return Attention.apply(query, key, value, engine)


def _exportable(query, key, value, axes, scale):
    """The same sum with whole tensors, of standard operators alone."""
    axes = sorted(axes, reverse=True)
    lengths = [query.shape[1 + axis] for axis in axes]
    parts = []
    for axis, length in zip(axes, lengths, strict=True):
        # (B, *other axes, heads, length, dim)
        q, k = (x.movedim(1 + axis, -2) for x in (widen(query), widen(key)))
        s = scale * q @ k.mT
        if parts:  # the own position was counted
            own = torch.eye(length, dtype=torch.bool, device=s.device)
            s = s.masked_fill(own, -torch.inf)
        parts.append(s.movedim(-2, 1 + axis))
    weights = torch.cat(parts, -1).softmax(-1).split(lengths, -1)
    outs = []
    for axis, w in zip(axes, weights, strict=True):
        v = widen(value).movedim(1 + axis, -2)
        outs.append((w.movedim(1 + axis, -2) @ v).movedim(-2, 1 + axis))
    return reduce(torch.add, outs).to(value.dtype)


@library.custom_op('mmseg_attn::axis_attention', mutates_args=())
def _operator(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    axes: Sequence[int],
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    qkv = map(pixel_rows, (query, key, value))
    return forward(axis_engine(axes, scale, backend), *qkv)


@_operator.register_fake
def _(query, key, value, axes, scale, backend):
    lse = accumulator(value.dtype)
    shape = value.shape
    return (
        torch.empty(shape, dtype=value.dtype, device=value.device),
        torch.empty((*shape[:-1], 1), dtype=lse, device=value.device),
    )


@library.custom_op('mmseg_attn::axis_attention_backward', mutates_args=())
def _operator_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    axes: Sequence[int],
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    engine = axis_engine(axes, scale, backend)
    grad, *qkv = map(pixel_rows, (grad, query, key, value))
    return tuple(backward(engine, grad, *qkv, dots(grad, out), lse))


@_operator_backward.register_fake
def _(grad, query, key, value, out, lse, axes, scale, backend):
    return tuple(
        torch.empty(x.shape, dtype=x.dtype, device=x.device)
        for x in (query, key, value)
    )


def _setup(ctx, inputs, output):
    *qkv, ctx.axes, ctx.scale, ctx.backend = inputs
    ctx.save_for_backward(*qkv, *output)
    ctx.mark_non_differentiable(output[1])


def _compiled_backward(ctx, grad, _):
    grads = _operator_backward(
        grad, *ctx.saved_tensors, ctx.axes, ctx.scale, ctx.backend
    )
    return *grads, None, None, None


_operator.register_autograd(_compiled_backward, setup_context=_setup)


def axis_backends(
    axes_of: Callable[..., Sequence[int]],
) -> dict[str, Backend]:
    """Backends of an operator along axes, but for its reference.

    Args:
        axes_of: From the query, and the options that come after scale, to
            the axes.
    """

    def backend(name):
        def run(query, key, value, scale, *options):
            axes = axes_of(query, *options)
            return axis_attention(
                query, key, value, axes=axes, scale=scale, backend=name
            )

        return run

    return dict(
        triton=triton_backend(backend), torch=Backend(backend('torch'))
    )
