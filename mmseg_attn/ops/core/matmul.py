# Copyright (c) mmseg_attn contributors.
"""Matrix products by the fastest of torch's libraries.

A GPU multiplies narrow floats as they are, with sums in fp32, and reads and
writes matrices with gaps between their rows: maps need no copies there.

On a CPU ``torch.mm`` and ``torch.bmm`` call the BLAS, which leaves the wide
vector units of processors other than its maker's unused. oneDNN, also part
of torch, uses them; torch offers it for fp32 only through an operator of its
compiler. So it is looked up with care: where it is missing or does not do
what it did, it is the BLAS. Small products are faster in the BLAS anyway,
which takes a whole batch at once, and so are matrices with gaps between
their rows, on which oneDNN is very slow.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from . import device

# From which size of a product on oneDNN was faster: the multiplications, and
# the sides of the left matrix.
_MIN_SIZE = 2**22
_MIN_SIDE = 112
# Positions of a part of a sum over them, at least; elements of all parts of a
# head, which are some hundred tiles of the outputs.
_MIN_PART = 128
_SPLIT_SIZE = 2**20
# Of narrow floats to fp32, in one launch. Since torch 2.8.
_HAS_WIDE_PRODUCT = hasattr(torch.ops.aten.bmm, 'dtype_out')


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Dtype of the sums: fp32 for narrower ones."""
    return torch.promote_types(dtype, torch.float32)


def widen(x: Tensor) -> Tensor:
    """A tensor in the dtype of the sums."""
    return x.to(accumulator(x.dtype))


def mm(a: Tensor, b: Tensor) -> Tensor:
    """Product of (i, k) and (k, j), without autograd."""
    return _onednn(a, b) if _use_onednn(a, b) else torch.mm(a, b)


def bmm(a: Tensor, b: Tensor) -> Tensor:
    """Products of (m, n, i, k) and (m, n, k, j), fp32 of narrow floats.

    Without autograd, as all here.
    """
    shape = (*a.shape[:-1], b.shape[-1])
    if device.on_gpu(a) or _use_onednn(a, b):
        product = a.new_empty(shape, dtype=accumulator(a.dtype))
        return bmm_into(product, a, b)
    return torch.bmm(a.flatten(0, 1), b.flatten(0, 1)).view(shape)


def bmm_into(
    target: Tensor, a: Tensor, b: Tensor, accumulate: bool = False
) -> Tensor:
    """Write (m, n, i, k) times (m, n, k, j) to a target, or add it.

    Args:
        target: (m, n, *rows, j), any number of axes counting the i rows.
        a, b: The factors.
        accumulate: Whether the product is added.
    """
    if device.on_gpu(a):
        return _strided_into(target, a, b, accumulate)
    a, b = a.flatten(0, 1), b.flatten(0, 1)
    if not _use_onednn(a, b):
        product = torch.bmm(a, b).view(target.shape)
        return target.add_(product) if accumulate else target.copy_(product)
    places = (t for group in target for t in group)
    for t, x, y in zip(places, a, b, strict=True):
        product = _onednn(x, y).view(t.shape)
        t.add_(product) if accumulate else t.copy_(product)
    return target


def _strided_into(target, a, b, accumulate):
    """One launch if the lead axes are one batch, else some along the shorter.

    A batch of torch's has one stride, which two axes seldom share.
    """
    try:
        rows = target.view(*a.shape[:-1], -1)
    except RuntimeError:  # torch's only way to tell
        product = target.new_empty(*a.shape[:-1], b.shape[-1])
        product = _strided_into(product, a, b, False).view(target.shape)
        return target.add_(product) if accumulate else target.copy_(product)
    matrices = rows, a, b
    if all(x.stride(0) == x.shape[1] * x.stride(1) for x in matrices):
        _one_launch(*(x.flatten(0, 1) for x in matrices), accumulate)
        return target
    shorter = 0 if a.shape[0] < a.shape[1] else 1
    steps = (x.unbind(shorter) for x in matrices)
    for t, x, y in zip(*steps, strict=True):
        _one_launch(t, x, y, accumulate)
    return target


def _one_launch(target, a, b, accumulate):
    """Write (n, i, k) times (n, k, j), or more launches on an older torch."""
    narrow = a.dtype != accumulator(a.dtype)
    if narrow and not _multiplies(a, target.dtype):
        product = torch.bmm(widen(a), widen(b))
        target.add_(product) if accumulate else target.copy_(product)
    elif accumulate:
        target.baddbmm_(a, b)
    elif a.dtype == target.dtype:
        torch.bmm(a, b, out=target)
    else:
        torch.bmm(a, b, out_dtype=target.dtype, out=target)


def _multiplies(x, dtype):
    """Whether narrow floats have a product of a dtype, with sums in fp32."""
    if x.device.type == 'cpu':
        return False
    if x.dtype == dtype:
        return True
    return _HAS_WIDE_PRODUCT and x.device.type in ('cuda', 'meta')


def operand(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Matrices (..., i, j) in the dtype of a product's other operand.

    Gradients of a scaled loss may leave the range of fp16. So there the
    longest row of each matrix is made of unit length.

    Returns:
        The matrices, and what the products are to be multiplied with,
        (..., 1, 1), if anything.
    """
    if dtype != torch.float16:
        return x.to(dtype), None
    wide = accumulator(x.dtype)
    lengths = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
    # Of shorter ones the squares vanish; they are 0 in fp16 anyway.
    factor = lengths.amax(-2, keepdim=True).clamp_min_(1e-18)
    return torch.div(x, factor, out=torch.empty_like(x, dtype=dtype)), factor


def write_product(
    target: Tensor,
    a: Tensor,
    b: Tensor,
    factor: Tensor | None,
    accumulate: bool = False,
) -> Tensor:
    """Write, or add, a product of which one is an :func:`operand`."""
    if factor is None:
        return bmm_into(target, a, b, accumulate)
    product = bmm_into(a.new_empty(*a.shape[:-1], b.shape[-1]), a, b)
    rows = product.mul_(factor).view(target.shape)
    return target.add_(rows) if accumulate else target.copy_(rows)


def matrices(x: Tensor) -> Tensor:
    """View (B, n, heads, dim) as (B, heads, n, dim)."""
    return x.transpose(1, 2)


def over_positions(a: Tensor, b: Tensor) -> Tensor:
    """Sum over the positions of products of two maps' rows, on a GPU.

    Of wide floats in parts of the positions: else few small outputs leave
    most of the device idle (8 heads in fp32 at 256x512 took four times as
    long as a loop over heads, on an H100), and their rounding grows with the
    map. Of narrow floats the libraries were as fast as they are.

    Args:
        a, b: (B, n, heads, dim or value_dim).

    Returns:
        (B, heads, dim, value_dim), fp32 of narrow floats.
    """
    batch, n, heads, dim = a.shape
    parts = min(n // _MIN_PART, _SPLIT_SIZE // (dim * b.shape[-1]))
    narrow = a.dtype != accumulator(a.dtype)
    if parts < 2 or narrow:
        return bmm(matrices(a).mT, matrices(b))
    whole = n - n % parts
    # (B, parts, heads, positions, dim)
    left, right = (
        x[:, :whole].unflatten(1, (parts, -1)).transpose(2, 3) for x in (a, b)
    )
    shape = batch, parts, heads, dim, b.shape[-1]
    sums = a.new_empty(shape, dtype=accumulator(a.dtype))
    for s, x, y in zip(sums, left, right, strict=True):
        bmm_into(s, x.mT, y)
    total = sums.sum(1)
    if whole < n:
        left, right = (matrices(x[:, whole:]) for x in (a, b))
        total += bmm(left.mT, right)
    return total


def rows_times(
    rows: Tensor, right: Tensor, like: Tensor, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor | None]:
    """The rows of a map times the transpose of small matrices.

    Args:
        rows: (B, n, heads, dim).
        right: (B, heads, features, dim), wide.
        like: A tensor of the product's shape and dtype.
        dtype: Dtype of the product, if not that of like.

    Returns:
        The product, (B, n, heads, features), and what it is to be multiplied
        with, (B, 1, heads, 1), if anything.
    """
    right, factor = operand(right, rows.dtype)
    product = torch.empty_like(like, dtype=dtype)
    bmm_into(matrices(product), matrices(rows), right.mT)
    return product, factor if factor is None else matrices(factor)


def add_to(total: Tensor | None, part: Tensor) -> Tensor:
    """A running sum that starts with its first part, not with zeros."""
    return part if total is None else total.add_(part)


def _is_dense(x):
    """Whether each matrix of a batch, or its transpose, is contiguous."""
    rows, columns = x.shape[-2:]
    return x.stride()[-2:] in ((columns, 1), (1, rows))


def _use_onednn(a, b):
    return (
        a.device.type == 'cpu'
        and a.dtype == torch.float32
        and min(a.shape[-2:]) >= _MIN_SIDE
        and a.shape[-2] * a.shape[-1] * b.shape[-1] >= _MIN_SIZE
        and _is_dense(a)
        and _is_dense(b)
        and onednn_works()
    )


def _onednn(x, y):
    """x @ y as a linear layer with the weight y^T."""
    linear = torch.ops.mkldnn._linear_pointwise
    return linear(x, y.t(), None, 'none', [], '')


@cache
def onednn_works() -> bool:
    """Whether torch's operator of oneDNN is here and does what it did."""
    if torch.backends.cpu.get_cpu_capability() != 'AVX512':
        return False
    x = torch.arange(6.0).view(2, 3)
    y = torch.arange(12.0).view(3, 4)
    try:
        return torch.equal(_onednn(x, y), x @ y)
    except (AttributeError, RuntimeError, TypeError):
        return False
