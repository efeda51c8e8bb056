# Copyright (c) mmseg_attn contributors.
"""``x + gamma * rows``: the end of layers with a learned factor.

On a GPU by a Triton kernel that turns the rows to the memory format of the
map on the way; where Triton cannot run, by torch.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..ops.core.autograd import dots, no_autocast, refuse_double_backward
from .projected_gpu import dense


def _by_kernel(name, x, *args):
    """What a kernel returns, None where it cannot run or fails."""
    from ..ops.kernels import residual as kernels
    from ..ops.kernels.launch import attempt

    if not kernels.can_run(x):
        return None
    run = partial(getattr(kernels, name), x, *args)
    return attempt((x.device, x.dtype), lambda: f'{x.dtype}', run)[1]


def add_residual(x: Tensor, gamma: Tensor, rows: Tensor) -> Tensor:
    """``x + gamma * rows`` without autograd.

    Args:
        x: Dense map (B, C, *spatial).
        gamma: One number.
        rows: (B, *spatial, 1, C), contiguous.

    Returns:
        In the memory format of x and the wider of the two dtypes.
    """
    y = _by_kernel('add_residual', x, gamma, rows)
    if y is not None:
        return y
    y = torch.empty_like(x, dtype=torch.promote_types(x.dtype, rows.dtype))
    attended = rows.squeeze(-2).movedim(-1, 1)
    return torch.addcmul(x, gamma.reshape(()), attended, out=y)


def residual_backward(
    grad: Tensor,
    gamma: Tensor,
    rows: Tensor,
    drows: Tensor | None,
    copy: Tensor | None = None,
) -> Tensor:
    """``<grad, rows>`` at each pixel, without autograd.

    Args:
        grad: Gradient of the output, a dense map (B, C, *spatial).
        gamma, rows: As in :func:`add_residual`.
        drows: Rows that are filled with ``gamma * grad``; they may be those
            of ``rows`` itself. None leaves it out.
        copy: A map of grad's strides that is filled with grad, or None.

    Returns:
        (B, *spatial, 1, 1), at least in fp32, not multiplied by gamma.
    """
    delta = _by_kernel('residual_backward', grad, gamma, rows, drows, copy)
    if delta is not None:
        return delta
    pixels = grad.movedim(1, -1).unsqueeze(-2)
    delta = dots(pixels, rows.to(grad.dtype))
    if copy is not None:
        copy.copy_(grad)
    if drows is not None:
        torch.mul(pixels, gamma.reshape(()), out=drows)
    return delta


class Residual(torch.autograd.Function):
    """``apply(x, gamma, rows)``, of any strides."""

    @staticmethod
    def forward(ctx, x, gamma, rows):
        rows = rows.contiguous()
        ctx.save_for_backward(gamma, rows)
        with no_autocast(x):
            return add_residual(dense(x), gamma, rows)

    @staticmethod
    def backward(ctx, grad):
        refuse_double_backward()
        gamma, rows = ctx.saved_tensors
        drows = torch.empty_like(rows) if ctx.needs_input_grad[2] else None
        with no_autocast(grad):
            delta = residual_backward(dense(grad), gamma, rows, drows)
        return grad, delta.sum().to(gamma.dtype).view_as(gamma), drows
