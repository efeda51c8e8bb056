# Copyright (c) mmseg_attn contributors.
"""1x1 convolutions between maps and rows of channels, as a GPU likes them.

A map (B, C, *spatial) is a matrix of pixels times channels, stored by rows in
channels_last and by columns otherwise; the products of cuBLAS take either. So
a map becomes the operators' rows (B, *spatial, C), and rows become a map,
within the product: no copy turns one into the other. All projections of a map
are one product, and its gradient adds up within a product. In fp32 they are
TF32 where torch allows it for products, which it does not by default, though
for convolutions it does: ``torch.set_float32_matmul_precision('high')``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..ops.core import device
from ..ops.core.autograd import (
    is_traced,
    no_autocast,
    refuse_double_backward,
)


def goes_gpu_way(x: Tensor, backend: str | None) -> bool:
    """Whether a layer shall take the steps of this file for a map.

    Not where a compiler or exporter looks, nor around the reference, which
    has derivatives of any order.
    """
    return device.on_gpu(x) and backend != 'reference' and not is_traced()


def dense(x: Tensor) -> Tensor:
    """A map as it is if contiguous or channels_last, else contiguous."""
    return x if x.movedim(1, -1).is_contiguous() else x.contiguous()


def autocast(*tensors: Tensor) -> list[Tensor]:
    """Tensors as autocast gives them to a convolution, if it is on."""
    place = tensors[0].device.type
    if place == 'meta' or not torch.is_autocast_enabled(place):
        return list(tensors)
    dtype = torch.get_autocast_dtype(place)
    return [x if x.dtype == torch.float64 else x.to(dtype) for x in tensors]


def stack(parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Weight (D, C) and bias (D,) of 1x1 convolutions side by side.

    Args:
        parameters: Weight (D_i, C, 1, ...) and bias (D_i,), alternating.
    """
    return torch.cat(parameters[::2]).flatten(1), torch.cat(parameters[1::2])


def matrices(x: Tensor) -> Tensor:
    """View (b, n, C) of a dense map: one if it is channels_last, else B."""
    rows = x.flatten(2).mT
    return rows.flatten(0, 1)[None] if rows.is_contiguous() else rows


def beside(rows: Tensor, pixels: Tensor) -> Tensor:
    """View of contiguous rows, as many matrices as pixels has."""
    return rows.view(*pixels.shape[:2], -1)


def _each(weight, pixels):
    """The same matrix for each of several."""
    return weight.expand(len(pixels), -1, -1)


def project(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """1x1 convolution of a dense map, without autograd.

    Args:
        x: (B, C, *spatial).
        weight: (D, C).
        bias: (D,).

    Returns:
        Rows (B, *spatial, D), contiguous.
    """
    pixels = matrices(x)
    rows = x.new_empty(*pixels.shape[:2], len(weight))
    if bias is None:
        torch.bmm(pixels, _each(weight.t(), pixels), out=rows)
    else:  # only to a single product cuBLAS adds it on the way
        for target, picture in zip(rows, pixels, strict=True):
            torch.addmm(bias, picture, weight.t(), out=target)
    return rows.view(len(x), *x.shape[2:], -1)


def add_product(
    total: Tensor, rows: Tensor, weight: Tensor, in_place: bool
) -> Tensor:
    """A dense map plus rows times weight, without autograd.

    Args:
        total: (B, C, *spatial).
        rows: (B, *spatial, D), contiguous.
        weight: (D, C).
        in_place: Whether total may be written over.

    Returns:
        In the dtype and memory format of total.
    """
    if total.dtype == rows.dtype:
        total = total if in_place else total.clone()
        pixels = matrices(total)
        pixels.baddbmm_(beside(rows, pixels), _each(weight, pixels))
        return total
    product = torch.empty_like(total, dtype=rows.dtype)
    pixels = matrices(product)
    torch.bmm(beside(rows, pixels), _each(weight, pixels), out=pixels)
    return total + product


def parameter_gradients(
    grad: Tensor, x: Tensor, like: Sequence[Tensor]
) -> list[Tensor]:
    """Gradients of stacked parameters, without autograd.

    Args:
        grad: Matrices (b, n, D), the gradient of the convolutions' output.
        x: Matrices (b, n, C), their input.
        like: Tensors of the shapes and dtype of the parameters.
    """
    dtype = like[0].dtype
    weight = torch.bmm(grad.mT, x).sum(0, dtype=dtype)
    bias = grad.sum((0, 1), dtype=dtype)
    widths = [len(p) for p in like[::2]]
    pairs = zip(weight.split(widths), bias.split(widths), strict=True)
    grads = (g for pair in pairs for g in pair)
    return [g.view_as(p) for g, p in zip(grads, like, strict=True)]


class Projection(torch.autograd.Function):
    """``apply(x, weight, bias, weight, bias, ...)`` -> x and its rows.

    The rows (B, *spatial, D) hold all projections side by side. x is handed
    on so that a residual's gradient comes back here, where the product adds
    to it.
    """

    @staticmethod
    def forward(ctx, x, *parameters):
        source, *narrow = autocast(dense(x), *parameters)
        weight, bias = stack(narrow)
        with no_autocast(x):
            rows = project(source, weight, bias)
        ctx.save_for_backward(source, weight, *parameters)
        return x, rows

    @staticmethod
    def backward(ctx, grad, rows):
        refuse_double_backward()
        x, weight, *parameters = ctx.saved_tensors
        needs_x, *needed = ctx.needs_input_grad
        dx, grads = None, [None] * len(needed)
        rows = rows.contiguous()
        with no_autocast(grad):
            if any(needed):
                pixels = matrices(x)
                flat = beside(rows, pixels)
                grads = parameter_gradients(flat, pixels, parameters)
            if needs_x:
                dx = add_product(dense(grad), rows, weight, in_place=False)
        return dx, *grads


class Reprojection(torch.autograd.Function):
    """``apply(x, rows, weight, bias)``: x plus a 1x1 convolution of rows."""

    @staticmethod
    def forward(ctx, x, rows, *parameters):
        rows, *narrow = autocast(rows.contiguous(), *parameters)
        weight, bias = stack(narrow)
        dtype = torch.promote_types(x.dtype, rows.dtype)
        ctx.save_for_backward(rows, weight, *parameters)
        with no_autocast(x):
            total = dense(x) + bias.to(dtype).view(-1, *[1] * (x.ndim - 2))
            return add_product(total, rows, weight.t(), in_place=True)

    @staticmethod
    def backward(ctx, grad):
        refuse_double_backward()
        rows, weight, *parameters = ctx.saved_tensors
        _, needs_rows, *needed = ctx.needs_input_grad
        drows, grads = None, [None] * len(needed)
        with no_autocast(grad):
            narrow = dense(grad).to(rows.dtype)
            if any(needed):
                pixels = matrices(narrow)
                flat = beside(rows, pixels)
                grads = parameter_gradients(pixels, flat, parameters)
            if needs_rows:
                drows = project(narrow, weight.t(), None)
        return grad, drows, *grads
