# Copyright (c) mmseg_attn contributors.
"""Between maps (B, C, *spatial) and the operators' (B, *spatial, heads, dim).

Maps in the channels_last memory format pass without a copy.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.core import device
from ..ops.core.autograd import is_traced


def transpose_into(target: Tensor, source: Tensor) -> Tensor:
    """Write (B, M, N) to a target (B, N, M), without autograd.

    Picture by picture, because torch copies a transposed matrix several
    times faster than any other permuted tensor (CPU).
    """
    for t, s in zip(target, source, strict=True):
        t.copy_(s.t())
    return target


class _Transpose(torch.autograd.Function):
    """(B, M, N) to a contiguous (B, N, M), and so for the gradient.

    Left to autograd, the gradient would stay permuted and slow down each sum
    that it enters.
    """

    @staticmethod
    def forward(ctx, x):
        return transpose_into(x.new_empty(x.mT.shape), x)

    @staticmethod
    def backward(ctx, grad):
        return _Transpose.apply(grad)


def _transpose(x):
    if is_traced():
        return x.transpose(1, 2)
    return _Transpose.apply(x)


def channels_last(x: Tensor) -> Tensor:
    """(B, C, *spatial) to (B, *spatial, C), contiguous."""
    moved = x.movedim(1, -1)
    if moved.is_contiguous():
        return moved
    return _transpose(x.flatten(2)).view(moved.shape)


def channels_first(x: Tensor, like: Tensor) -> Tensor:
    """(B, *spatial, C) to (B, C, *spatial), in the memory format of like."""
    if like.movedim(1, -1).is_contiguous():
        return x.movedim(-1, 1)
    return _transpose(x.flatten(1, -2)).view(like.shape)


def project(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """1x1 convolution of a channels-last map, as one head.

    Args:
        x: (B, *spatial, C), contiguous.
        weight: (D, C, 1, ...), of a 1x1 convolution of any rank.
        bias: (D,).

    Returns:
        (B, *spatial, 1, D), contiguous.
    """
    # As a convolution of a channels_last picture, because on a CPU that is
    # done by oneDNN, which is faster than the BLAS behind F.linear.
    picture = x.reshape(x.shape[0], -1, x.shape[-2], x.shape[-1])
    weight = weight.flatten(1)[..., None, None]
    y = channels_last(F.conv2d(picture.movedim(-1, 1), weight, bias))
    return y.reshape(*x.shape[:-1], 1, weight.shape[0])


def cut(x: Tensor, pads: tuple[int, int, int, int]) -> Tensor:
    """Without what F.pad added: (left, right, top, bottom)."""
    # Slices would bind exported sizes to being padded. On a GPU their
    # gradient takes more passes, and is no longer channels_last.
    if is_traced() or (device.on_gpu(x) and any(pads)):
        return F.pad(x, [-pad for pad in pads])
    left, right, top, bottom = pads
    height, width = x.shape[-2:]
    return x[..., top : height - bottom, left : width - right]
