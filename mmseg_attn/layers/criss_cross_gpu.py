# Copyright (c) mmseg_attn contributors.
"""The whole criss-cross layer as one step for autograd, on a GPU.

Around the attention it moves the map as seldom as it can. The forward reads
it for one product, which makes query, key and value, and once more for the
residual. The backward makes of its gradient, in one pass, the attention's
gradient, the products <gradient, output> that both the attention and gamma
need, and the tensor to which a product then adds the projections' share.
"""

from __future__ import annotations

import torch

from ..ops.core.autograd import (
    forward,
    graph_is_kept,
    no_autocast,
    refuse_double_backward,
)
from ..ops.core.axis import axis_engine
from ..ops.core.checks import check_qkv
from ..ops.declare import chosen
from .projected_gpu import (
    add_product,
    autocast,
    beside,
    dense,
    matrices,
    parameter_gradients,
    project,
    stack,
)
from .residual import add_residual, residual_backward

_NAME = 'criss_cross_attention'


class CrissCrossStep(torch.autograd.Function):
    """x + gamma * attention of the projections of x, (B, C, *spatial).

    ``apply(x, gamma, axes, backend, query's weight, bias, key's, value's)``.
    """

    @staticmethod
    def forward(ctx, x, gamma, axes, backend, *parameters):
        x = dense(x)
        source, *narrow = autocast(x, *parameters)
        weight, bias = stack(narrow)
        ctx.widths = [len(p) for p in parameters[::2]]
        with no_autocast(x):
            rows = project(source, weight, bias).unsqueeze(-2)
            qkv = rows.split(ctx.widths, -1)
            check_qkv(_NAME, *qkv)
            ctx.engine = axis_engine(axes, 1.0, chosen(_NAME, backend, *qkv))
            out, lse = forward(ctx.engine, *qkv)
            y = add_residual(x, gamma, out)
        if not any(ctx.needs_input_grad[4:]):
            source = None
        ctx.save_for_backward(
            source, gamma, weight, rows, out, lse, *parameters
        )
        return y

    @staticmethod
    def backward(ctx, grad):
        refuse_double_backward()
        saved = ctx.saved_tensors  # once: checkpointing hands them out once
        x, gamma, weight, rows, out, lse, *parameters = saved
        needs_x, _, _, _, *needed = ctx.needs_input_grad
        dx, grads = None, [None] * len(needed)
        with no_autocast(grad):
            grad, pixels = dense(grad), None
            # The output is needed no more once its gradient is known.
            if needs_x or any(needed):
                pixels = torch.empty_like(out) if graph_is_kept() else out
            # Where dtypes differ the product cannot add.
            if needs_x and grad.dtype == rows.dtype:
                dx = torch.empty_like(grad)
            delta = residual_backward(grad, gamma, out, pixels, dx)
            dgamma = delta.sum().to(gamma.dtype).view_as(gamma)
            if pixels is not None:
                delta.mul_(gamma)
                drows = _attend_backward(ctx, pixels, rows, delta, lse)
            if any(needed):
                given = matrices(x)
                flat = beside(drows, given)
                grads = parameter_gradients(flat, given, parameters)
            if needs_x:
                total, ours = (grad, False) if dx is None else (dx, True)
                dx = add_product(total, drows, weight, in_place=ours)
        return dx, dgamma, None, None, *grads


def _attend_backward(ctx, grad, rows, delta, lse):
    """Gradients of query, key and value side by side, as the rows are."""
    drows = torch.empty_like(rows)
    qkv, out = (x.split(ctx.widths, -1) for x in (rows, drows))
    ctx.engine.attend_backward(grad, *qkv, delta, lse, out=out)
    return drows
