# Copyright (c) mmseg_attn contributors.
"""<grad, out> of each row, which the backward of attention needs."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.autograd import row_step
from .launch import DTYPES, attempt, cdiv, jit, launch, power, reason, tl
from .lines import load_rows

_DTYPES = frozenset(DTYPES)
_ROWS = 16
_CHANNELS = 256


@jit
def row_products(
    grad, out, delta, grad_step, out_step, count,
    WIDTH: tl.constexpr, C: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """delta = <grad, out> of R rows."""
    rows = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    inside = rows < count
    total = tl.zeros((R,), tl.float32)
    for c in range(0, WIDTH, C):
        g = load_rows(grad, grad_step, rows, inside, c, WIDTH, C)
        o = load_rows(out, out_step, rows, inside, c, WIDTH, C)
        total += tl.sum(g.to(tl.float32) * o.to(tl.float32), 1)
    tl.store(delta + rows, total, inside)


def row_products_of(grad: Tensor, out: Tensor) -> Tensor | None:
    """<grad, out> of each row, in fp32; each is read once.

    Args:
        grad, out: (..., dim), on one device.

    Returns:
        (..., 1), or None where the kernel cannot run: of other dtypes than
        float32, bfloat16 and float16, of rows that are not one stride apart,
        without Triton, or where it fails: then one warning says why.
    """
    kind = out.device, grad.dtype, out.dtype
    if reason(out.device) or not {*kind[1:]} <= _DTYPES:
        return None
    steps = row_step(grad), row_step(out)
    if None in steps:
        return None
    delta = torch.empty(
        (*out.shape[:-1], 1), dtype=torch.float32, device=out.device
    )
    count, width = delta.numel(), out.shape[-1]

    def run():
        launch(
            row_products, [cdiv(count, _ROWS)],
            grad, out, delta, *steps, count,
            on=out, reads=(grad, out), writes=(delta,),
            WIDTH=width, C=min(power(width), _CHANNELS),
            R=_ROWS, num_warps=4,
        )  # fmt: skip

    # It may fail as without a C compiler.
    ran, _ = attempt(kind, lambda: f'{grad.dtype}', run)
    return delta if ran else None
