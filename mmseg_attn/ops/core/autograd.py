# Copyright (c) mmseg_attn contributors.
"""One autograd step around attention that recomputes its scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from . import device
from .matmul import accumulator, bmm, widen

# Rows of a map whose products are summed up at once, on a CPU; rows of a
# tile, on a GPU.
_CPU_ROWS = 1024
_TILE = 8


class Engine(NamedTuple):
    """A forward and backward without autograd.

    Attributes:
        attend: From (query, key, value) to (out, lse).
        attend_backward: From (grad, query, key, value, delta, lse) to
            nothing: it writes the gradients to the tensors of its keyword
            ``out`` that are not None.
        widens: Whether narrow floats are made fp32 for it on a CPU.
    """

    attend: Callable
    attend_backward: Callable
    widens: bool = True


def row_step(x: Tensor) -> int | None:
    """Elements from row to row of channels, if all are so far apart.

    None if they are not, or if the channels do not lie side by side.
    """
    return _step_of(x.shape, x.stride())


@lru_cache(maxsize=1024)
def _step_of(shape, strides):
    step, further = shape[-1], None
    for n, stride in zip(shape[-2::-1], strides[-2::-1], strict=True):
        if n > 1:
            if further is None:
                step = further = stride
            if stride != further:
                return None
            further = stride * n
    # Torch ignores the stride of an axis of length 1.
    return step if strides[-1] == 1 or shape[-1] == 1 else None


def pixel_rows(x: Tensor) -> Tensor:
    """The tensor itself if its pixels are rows of a matrix, else a copy."""
    return x.contiguous() if row_step(x) is None else x


def dots(a: Tensor, b: Tensor) -> Tensor:
    """Scalar products along the last axis, (..., 1), without a large a * b.

    The sums of narrow floats are fp32. On a GPU by a Triton kernel that reads
    each map once; where that cannot run, by products of a few rows.
    """
    if device.on_gpu(a):
        from ..kernels.delta import row_products_of

        if (found := row_products_of(a, b)) is not None:
            return found
    sums = a.new_empty(*a.shape[:-1], 1, dtype=accumulator(a.dtype))
    rows = sums.view(-1), a.flatten(0, -2), b.flatten(0, -2)
    if device.on_gpu(a):
        with no_autocast(a):
            _dots_of_tiles(*rows)
    else:
        for s, x, y in zip(*(r.split(_CPU_ROWS) for r in rows), strict=True):
            torch.sum(widen(x) * y, -1, out=s)
    return sums


def _dots_of_tiles(sums, a, b):
    """The diagonals of products of a few rows, without a copy of a map."""
    whole = len(a) - len(a) % _TILE
    parts = (x.tensor_split([whole]) for x in (sums, a, b))
    for s, x, y in zip(*parts, strict=True):
        if len(s):
            shape = 1, -1, min(_TILE, len(s)), x.shape[-1]
            products = bmm(x.reshape(shape), y.reshape(shape).mT)
            diagonals = products.diagonal(dim1=-2, dim2=-1)
            s.view(diagonals.shape).copy_(diagonals)


def is_traced() -> bool:
    """Whether a compiler or exporter is looking: it wants plain steps."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def no_autocast(x: Tensor) -> AbstractContextManager:
    """Context in which autocast does not narrow fp32 work tensors.

    An empty one where there is no autocast, to leave no trace in exported
    graphs.
    """
    device = x.device.type
    if device != 'meta' and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def graph_is_kept() -> bool:
    """Whether another backward may need the saved tensors as they are."""
    try:
        return torch._C._autograd._get_current_graph_task_keep_graph()
    except AttributeError:  # a torch that does not tell
        return True


def refuse_double_backward() -> None:
    """Raise in a backward whose own gradient was asked for."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            'this backend is differentiable once, but its gradient was asked '
            "for with create_graph=True: use backend='reference'"
        )


def _given(engine, *tensors):
    """What the engine is to be given."""
    if engine.widens and not device.on_gpu(tensors[0]):
        return [widen(x) for x in tensors]
    return tensors


def forward(
    engine: Engine, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Output in the dtype of value, and log-sum-exp, of pixel rows."""
    with no_autocast(query):
        out, lse = engine.attend(*_given(engine, query, key, value))
    return out.to(value.dtype), lse


def backward(
    engine: Engine,
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    delta: Tensor,
    lse: Tensor,
    needed: Sequence[bool] = (True,) * 3,
) -> list[Tensor | None]:
    """Gradients of query, key and value, None where not needed.

    Args:
        engine: The attention.
        grad: Gradient of the output, as pixel rows.
        query, key, value: What the forward was given, as pixel rows.
        delta: <grad, out> at each position.
        lse: Log-sum-exp that the forward returned.
        needed: Whether each of the three gradients is needed.
    """
    dtype = value.dtype
    with no_autocast(grad):
        tensors = _given(engine, grad, query, key, value)
        grads = [
            x.new_empty(x.shape) if needs else None
            for x, needs in zip(tensors[1:], needed, strict=True)
        ]
        engine.attend_backward(*tensors, delta, lse, out=grads)
    return [x if x is None else x.to(dtype) for x in grads]


class Attention(torch.autograd.Function):
    """``apply(query, key, value, engine)``; saves no scores."""

    @staticmethod
    def forward(ctx, query, key, value, engine):
        qkv = [pixel_rows(x) for x in (query, key, value)]
        out, lse = forward(engine, *qkv)
        ctx.save_for_backward(*qkv, out, lse)
        ctx.engine = engine
        return out

    @staticmethod
    def backward(ctx, grad):
        refuse_double_backward()
        *qkv, out, lse = ctx.saved_tensors
        grad = pixel_rows(grad)
        needed = ctx.needs_input_grad[:3]
        delta = dots(grad, out)
        return *backward(ctx.engine, grad, *qkv, delta, lse, needed), None
