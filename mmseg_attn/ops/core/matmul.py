# Copyright (c) mmseg_attn contributors.
"""Matrix products by the faster of torch's two CPU libraries.

``torch.mm`` and ``torch.bmm`` call the BLAS, which leaves the wide vector
units of processors other than its maker's unused. oneDNN, also part of
torch, uses them; torch offers it for fp32 only through an operator of its
compiler. So it is looked up with care: where it is missing or does not do
what it did, it is the BLAS. Small products are faster in the BLAS anyway,
which takes a whole batch at once, and so are matrices with gaps between
their rows, on which oneDNN is very slow.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

# From which size of a product on oneDNN was faster: the multiplications, and
# the sides of the left matrix.
_MIN_SIZE = 2**22
_MIN_SIDE = 112


def mm(a: Tensor, b: Tensor) -> Tensor:
    """(i, k) times (k, j), without autograd."""
    return _onednn(a, b) if _use_onednn(a, b) else torch.mm(a, b)


def bmm(a: Tensor, b: Tensor) -> Tensor:
    """(n, i, k) times (n, k, j), without autograd."""
    if not _use_onednn(a, b):
        return torch.bmm(a, b)
    product = a.new_empty(len(a), a.shape[1], b.shape[2])
    bmm_into(product[None], a, b)
    return product


def bmm_into(
    target: Tensor, a: Tensor, b: Tensor, accumulate: bool = False
) -> Tensor:
    """Write (n, i, k) times (n, k, j) to a target, or add it.

    Args:
        target: (m, n / m, *rows, j), any number of axes counting the i rows.
    """
    if not _use_onednn(a, b):
        product = torch.bmm(a, b).view(target.shape)
        return target.add_(product) if accumulate else target.copy_(product)
    places = (t for group in target for t in group)
    for t, x, y in zip(places, a, b, strict=True):
        product = _onednn(x, y).view(t.shape)
        t.add_(product) if accumulate else t.copy_(product)
    return target


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
        and _onednn_works()
    )


def _onednn(x, y):
    """x @ y as a linear layer with the weight y^T."""
    linear = torch.ops.mkldnn._linear_pointwise
    return linear(x, y.t(), None, 'none', [], '')


@cache
def _onednn_works() -> bool:
    if torch.backends.cpu.get_cpu_capability() != 'AVX512':
        return False
    x = torch.arange(6.0).view(2, 3)
    y = torch.arange(12.0).view(3, 4)
    try:
        return torch.equal(_onednn(x, y), x @ y)
    except (AttributeError, RuntimeError, TypeError):
        return False
