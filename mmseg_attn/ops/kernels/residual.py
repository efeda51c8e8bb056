# Copyright (c) mmseg_attn contributors.
"""``x + gamma * rows`` of a map and an operator's output, and its gradient.

The map (B, C, *spatial) may lie channel by channel or, in channels_last,
pixel by pixel; the rows (B, *spatial, 1, C) lie pixel by pixel. A tile of
pixels and channels is transposed in the registers, so that each tensor
passes once, in long runs of its own order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import launch as launches
from .launch import cdiv, jit, launch, tl

# Of pixels and of channels: runs of 128 bytes in bf16 on either side.
_PIXELS = 64
_CHANNELS = 64


def can_run(x: Tensor) -> bool:
    """Whether a map can pass through these kernels."""
    return launches.reason(x.device) is None and x.dtype != torch.float64


@jit
def _pixels_of(tile, pixels, P: tl.constexpr):
    """Picture and pixels of a tile, in 64 bits: maps may be that large."""
    tiles = tl.cdiv(pixels, P)
    pixel = (tile % tiles).to(tl.int64) * P + tl.arange(0, P)
    return (tile // tiles).to(tl.int64), pixel


@jit
def _places(
    picture, pixel, start, picture_step, channel_step, pixel_step, pixels,
    CHANNELS: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Where a tile lies in the map and in the rows, and what of it exists."""
    channel = (start + tl.arange(0, K))[None, :].to(tl.int64)
    mask = (pixel < pixels)[:, None] & (channel < CHANNELS)
    at = picture * picture_step + pixel[:, None] * pixel_step
    row = (picture * pixels + pixel)[:, None] * CHANNELS
    return at + channel * channel_step, row + channel, mask


@jit
def _add_residual(
    x, gamma, rows, y, picture_step, channel_step, pixel_step, pixels,
    CHANNELS: tl.constexpr, P: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """A tile of ``y = x + gamma * rows``."""
    picture, pixel = _pixels_of(tl.program_id(0), pixels, P)
    at, row, mask = _places(
        picture, pixel, tl.program_id(1) * K, picture_step, channel_step,
        pixel_step, pixels, CHANNELS, K,
    )  # fmt: skip
    scaled = tl.load(rows + row, mask, 0.0).to(tl.float32)
    scaled *= tl.load(gamma).to(tl.float32)
    total = tl.load(x + at, mask, 0.0).to(tl.float32) + scaled
    tl.store(y + at, total.to(y.dtype.element_ty), mask)


@jit
def _residual_backward(
    grad, gamma, rows, delta, drows, copy,
    picture_step, channel_step, pixel_step, pixels,
    CHANNELS: tl.constexpr, P: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """``<grad, rows>`` of some pixels, ``gamma * grad`` as rows, a copy."""
    picture, pixel = _pixels_of(tl.program_id(0), pixels, P)
    scale = tl.load(gamma).to(tl.float32)
    total = tl.zeros((P,), tl.float32)
    for start in range(0, CHANNELS, K):
        at, row, mask = _places(
            picture, pixel, start, picture_step, channel_step, pixel_step,
            pixels, CHANNELS, K,
        )  # fmt: skip
        g = tl.load(grad + at, mask, 0.0).to(tl.float32)
        total += tl.sum(g * tl.load(rows + row, mask, 0.0).to(tl.float32), 1)
        if copy is not None:
            tl.store(copy + at, g.to(copy.dtype.element_ty), mask)
        if drows is not None:
            tl.debug_barrier()  # drows may be rows, read by other threads
            scaled = (scale * g).to(drows.dtype.element_ty)
            tl.store(drows + row, scaled, mask)
    tl.store(delta + picture * pixels + pixel, total, pixel < pixels)


def _geometry(x):
    """Steps between pictures, channels and pixels, and the pixels."""
    steps = x.flatten(2).stride()
    return *steps, x[0, 0].numel()


def add_residual(x: Tensor, gamma: Tensor, rows: Tensor) -> Tensor:
    """``x + gamma * rows``, in the wider of the two dtypes.

    Args:
        x: (B, C, *spatial), contiguous or channels_last.
        gamma: One number.
        rows: (B, *spatial, 1, C), contiguous.

    Returns:
        A map in the memory format of x.
    """
    y = torch.empty_like(x, dtype=torch.promote_types(x.dtype, rows.dtype))
    pictures, channels = x.shape[:2]
    steps = _geometry(x)
    launch(
        _add_residual,
        (
            pictures * cdiv(steps[-1], _PIXELS),
            cdiv(channels, _CHANNELS),
        ),
        *(x, gamma, rows, y, *steps),
        on=rows,
        reads=(x, gamma, rows),
        writes=(y,),
        CHANNELS=channels,
        P=_PIXELS,
        K=_CHANNELS,
    )
    return y


def residual_backward(
    grad: Tensor,
    gamma: Tensor,
    rows: Tensor,
    drows: Tensor | None,
    copy: Tensor | None,
) -> Tensor:
    """``<grad, rows>`` at each pixel.

    Args:
        grad: (B, C, *spatial), contiguous or channels_last.
        gamma: One number.
        rows: (B, *spatial, 1, C), contiguous.
        drows: Is filled with ``gamma * grad`` as rows; may be rows itself.
        copy: Is filled with grad; has its strides.

    Returns:
        (B, *spatial, 1, 1), in fp32, not multiplied by gamma.
    """
    delta = rows.new_empty(*rows.shape[:-1], 1, dtype=torch.float32)
    pictures, channels = grad.shape[:2]
    steps = _geometry(grad)
    launch(
        _residual_backward,
        (pictures * cdiv(steps[-1], _PIXELS),),
        *(grad, gamma, rows, delta, drows, copy, *steps),
        on=rows,
        reads=(grad, gamma, rows),
        writes=(delta, drows, copy),
        CHANNELS=channels,
        P=_PIXELS,
        K=_CHANNELS,
        num_warps=8,  # with 4 it spills on some cards
    )
    return delta
