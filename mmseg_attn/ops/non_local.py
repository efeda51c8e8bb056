# Copyright (c) mmseg_attn contributors.
"""Dense attention of all to all: the yardstick of the others."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .core import device, fused
from .core.autograd import is_traced, no_autocast
from .core.axis import axis_attention
from .core.checks import check_qkv
from .core.engines import triton_backend
from .core.reference import masked_attention
from .declare import (
    Backend,
    Case,
    attention_flops,
    narrow_keys,
    register,
    select,
)


def non_local_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float = 1.0,
    backend: str | None = None,
) -> Tensor:
    """Attention of each position to all positions.

    Args:
        query: (B, *spatial, heads, dim), with one or more spatial axes.
        key: (B, *key_spatial, heads, dim); the keys may be of another grid.
        value: (B, *key_spatial, heads, value_dim).
        scale: Factor of the scores before the softmax, a number.
        backend: ``'torch'`` (scaled_dot_product_attention, which keeps no
            affinity where torch has a fused kernel; that of the CPU, in torch
            2.13, has gradients that are not finite from scores of some
            millions on), ``'triton'`` (CUDA, keys of the queries' grid),
            which keeps no affinity and is differentiable once,
            ``'reference'`` or None for torch.

    Returns:
        (B, *spatial, heads, value_dim), in the dtype of the inputs.

    Raises:
        TypeError: Inputs are not tensors of one floating point dtype.
        ValueError: Shapes that do not fit, or an unknown backend.
        RuntimeError: The named backend cannot run here.

    Examples:
        >>> import torch
        >>> from mmseg_attn.ops import non_local_attention
        >>> query, key = torch.randn(2, 1, 16, 24, 1, 8)
        >>> value = torch.randn(1, 16, 24, 1, 64)
        >>> non_local_attention(query, key, value).shape
        torch.Size([1, 16, 24, 1, 64])

    Non-local Neural Networks, https://arxiv.org/abs/1711.07971, equation 1
    with the (embedded) Gaussian of section 3.2.
    """
    name = 'non_local_attention'
    check_qkv(name, query, key, value, scale, cross=True)
    run = select(name, backend, query, key, value)
    return run(query, key, value, scale)


def _reference(query, key, value, scale):
    return masked_attention(query, key, value, None, scale)


def _backend(name):
    """The grid as one line, whose positions all attend to each other."""

    def run(query, key, value, scale):
        if is_traced():
            return _torch(query, key, value, scale)
        qkv = (x.flatten(1, -3) for x in (query, key, value))
        out = axis_attention(*qkv, axes=[0], scale=scale, backend=name)
        return out.view(value.shape)

    return run


def _limits(query, key, value):
    if query.shape[1:-2] != key.shape[1:-2]:
        return 'needs keys of the grid of the queries'
    return None


def _torch(query, key, value, scale):
    width = value.shape[-1]
    if device.on_gpu(query):
        maps = [_aligned(x) for x in (query, key, value)]
    else:
        # The fused kernel of the CPU wants one width; zeros change no score.
        wide = max(query.shape[-1], width)
        maps = [F.pad(x, (0, wide - x.shape[-1])) for x in (query, key, value)]
    q, k, v = (x.flatten(1, -3).transpose(1, 2) for x in maps)
    with no_autocast(query):
        out = fused.attend(q, k, v, scale=scale)
    out = out[..., :width].transpose(1, 2)
    return out.reshape(*query.shape[:-1], width)


def _aligned(x):
    """A map as the fused kernels of GPUs take it, maybe padded with zeros.

    They read 16 bytes at once, which all rows must begin on; of what they do
    not take the affinity becomes a tensor.
    """
    unit = 16 // x.element_size()
    missing = -x.shape[-1] % unit
    if missing:
        return F.pad(x, (0, missing))
    if is_traced():  # compilers lay out memory, and know no offsets yet
        return x
    *strides, last = x.stride()
    if last == 1 and not any(n % unit for n in (x.storage_offset(), *strides)):
        return x
    return x.clone(memory_format=torch.contiguous_format)


register(
    function=non_local_attention,
    paper='Non-local Neural Networks, https://arxiv.org/abs/1711.07971',
    backends=dict(
        # Flash attention of parts of the channels was ahead, on an H100.
        triton=triton_backend(_backend, _limits, by_default=False),
        torch=Backend(_torch),
        reference=Backend(_reference),
    ),
    cases=(
        Case((4, 7), heads=2, options=dict(scale=0.7)),
        Case((4, 7), key_spatial=(3, 2)),
        Case((7,)),
        Case((3, 2, 4), heads=2, batch=1),
        Case((33, 17), dim=16, value_dim=24),
    ),
    benchmark=narrow_keys,
    flops=lambda case: attention_flops(
        case, math.prod(case.key_spatial or case.spatial)
    ),
)
