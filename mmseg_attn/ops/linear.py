# Copyright (c) mmseg_attn contributors.
"""Linear attention: of positions, and of channels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .core.autograd import is_traced, no_autocast, widen
from .core.channels import channel_attention
from .core.checks import check_choice, check_qkv
from .core.context import context_attention
from .core.features import (
    MIN_DENOMINATOR,
    MIN_NORM,
    SOFTPLUS,
    UNIT_AND_ONE,
    Rule,
)
from .core.reference import by_heads, like_query
from .declare import Backend, Case, narrow_keys, register, select
from .efficient import context_cases, context_flops

FEATURE_MAPS = ('taylor', 'softplus')
VARIANTS = ('official', 'corrected')


def linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    feature_map: str = 'taylor',
    eps: float = 1e-6,
    backend: str | None = None,
) -> Tensor:
    """Attention with a similarity that splits into a product of features.

    Args:
        query: (B, *spatial, heads, dim), with one or more spatial axes.
        key: (B, *key_spatial, heads, dim); the keys may be of another grid.
        value: (B, *key_spatial, heads, value_dim).
        feature_map: ``'taylor'``: similarity 1 + q . k of query and key of
            unit length, the first order of exp (Linear Attention Mechanism).
            ``'softplus'``: softplus(q) . softplus(k) (MANet's kernel
            attention).
        eps: Added to each channel of the sum of the keys' features, as in
            the official code. Vectors shorter than 1e-6 are not scaled to
            unit length, so that a zero vector gives no NaN. A sum of
            weights below 1e-30 counts as that: far negative queries give 0
            with 'softplus'. With 'taylor', the weights of a query that
            points away from all keys are small differences.
        backend: ``'torch'`` (keeps no affinity for the backward;
            differentiable once), ``'reference'`` (dense) or None for the
            best that can run.

    Returns:
        (B, *spatial, heads, value_dim), in the dtype of the inputs. All sums
        of fp16 and bf16 inputs are in fp32.

    Raises:
        TypeError: Inputs are not tensors of one floating point dtype.
        ValueError: Shapes that do not fit, an unknown feature map or
            backend, a negative eps.
        RuntimeError: The named backend cannot run here.

    Examples:
        >>> import torch
        >>> from mmseg_attn.ops import linear_attention
        >>> query, key = torch.randn(2, 1, 32, 48, 1, 8)
        >>> value = torch.randn(1, 32, 48, 1, 64)
        >>> linear_attention(query, key, value).shape
        torch.Size([1, 32, 48, 1, 64])

    Linear Attention Mechanism, https://arxiv.org/abs/2007.14902; kernel
    attention: MANet, https://arxiv.org/abs/2009.02130.
    """
    name = 'linear_attention'
    check_qkv(name, query, key, value, cross=True)
    check_choice(name, 'feature_map', feature_map, FEATURE_MAPS)
    _check_eps(name, eps)
    run = select(name, backend, query, key, value)
    return run(query, key, value, feature_map, eps)


def _check_eps(operator, eps):
    if not isinstance(eps, (int, float)) or not 0 <= eps < math.inf:
        raise ValueError(
            f'{operator}: eps must be a number not below 0, got {eps!r}'
        )


def _reference(query, key, value, feature_map, eps):
    q, k, v = map(by_heads, (query, key, value))
    if feature_map == 'taylor':
        q, k = (F.normalize(x, dim=-1, eps=MIN_NORM) for x in (q, k))
        similarity = 1 + q @ k.mT
    else:
        q, k = F.softplus(q), F.softplus(k)
        similarity = q @ k.mT
    # eps stands in the sum of keys: eps * sum over channels of q.
    total = similarity.sum(-1, keepdim=True) + eps * q.sum(-1, keepdim=True)
    floor = MIN_DENOMINATOR
    if feature_map == 'taylor':  # the sum of n terms has n roundings
        floor = k.shape[-2] * torch.finfo(total.dtype).eps
    return like_query(similarity @ v / total.clamp_min(floor), query)


def _torch(query, key, value, feature_map, eps):
    feature = UNIT_AND_ONE if feature_map == 'taylor' else SOFTPLUS
    rule = Rule(
        feature,
        feature,
        normalizes=True,
        eps=eps,
        cancels=feature is UNIT_AND_ONE,
    )
    return context_attention(query, key, value, rule)


def channel_linear_attention(
    value: Tensor,
    *,
    variant: str = 'official',
    eps: float = 1e-6,
    backend: str | None = None,
) -> Tensor:
    """Linear attention between the channels of a map.

    With X the map, (n, C), n positions and C channels of one head:

    - ``'official'``, as the authors' code computes it: U is X with each
      position scaled to unit length, and channel c becomes
      ``(sum over c' of X_c' + U (U^T X)_c) / (n + U_c . (sum over c' of
      U_c' + eps))``.
    - ``'corrected'``, the mirror image of :func:`linear_attention`: U is X
      with each channel scaled to unit length and channel c becomes
      ``(sum over c' of X_c' + X (U^T U)_c) / (C + U_c . (sum over c' of
      U_c' + eps))``.

    Args:
        value: (B, *spatial, heads, C), with one or more spatial axes. The
            channels of a head attend to each other.
        variant: ``'official'`` or ``'corrected'``.
        eps: Added to the sums of channels, as the formulas say. What is
            shorter than 1e-6 is not scaled to unit length, so that zeros give
            no NaN; but there the gradient is that of a factor of 1e6, which
            fp16 does not hold. Behind a ReLU nothing comes of it.
        backend: ``'torch'`` (keeps only its input for the backward;
            differentiable once), ``'reference'`` (loops over channels) or
            None for the best that can run.

    Returns:
        A tensor of value's shape and dtype. All sums of fp16 and bf16 inputs
        are in fp32.

    Raises:
        TypeError: The input is not a floating point tensor.
        ValueError: A shape that does not fit, an unknown variant or backend,
            a negative eps.
        RuntimeError: The named backend cannot run here.

    Examples:
        >>> import torch
        >>> from mmseg_attn.ops import channel_linear_attention
        >>> value = torch.randn(1, 32, 48, 1, 64)
        >>> channel_linear_attention(value).shape
        torch.Size([1, 32, 48, 1, 64])

    Linear Attention Mechanism, https://arxiv.org/abs/2007.14902.
    """
    name = 'channel_linear_attention'
    check_qkv(name, value, value, value)
    check_choice(name, 'variant', variant, VARIANTS)
    _check_eps(name, eps)
    return select(name, backend, value)(value, variant, eps)


def _channel_torch(value, variant, eps):
    if not is_traced():
        return channel_attention(value, variant == 'official', eps)
    with no_autocast(value):
        return _exportable(value, variant, eps)


def _exportable(value, variant, eps):
    """The same of standard operators alone, for tracers."""
    x = widen(value.flatten(1, -3).transpose(1, 2))  # (B, heads, n, C)
    official = variant == 'official'
    unit = F.normalize(x, dim=-1 if official else -2, eps=MIN_NORM)
    count = x.shape[-2] if official else x.shape[-1]
    mixed = unit @ (unit.mT @ x) if official else x @ (unit.mT @ unit)
    numerator = x.sum(-1, keepdim=True) + mixed
    total = unit.sum(-1, keepdim=True) + eps
    denominator = count + (unit * total).sum(-2, keepdim=True)
    out = (numerator / denominator).transpose(1, 2)
    return out.reshape(value.shape).to(value.dtype)


def _channel_reference(value, variant, eps):
    x = by_heads(value)
    norm = x.norm(dim=-1 if variant == 'official' else -2, keepdim=True)
    u = x / norm.clamp_min(MIN_NORM)
    columns = []
    for c in range(x.shape[-1]):
        out, similar = 0, 0
        for d in range(x.shape[-1]):
            if variant == 'official':
                weight = (x[..., c] * u[..., d]).sum(-1, keepdim=True)
                out = out + x[..., d] + weight * u[..., d]
            else:
                weight = (u[..., c] * u[..., d]).sum(-1, keepdim=True)
                out = out + (1 + weight) * x[..., d]
            similar = similar + u[..., d]
        count = x.shape[-2] if variant == 'official' else x.shape[-1]
        total = (u[..., c] * (similar + eps)).sum(-1, keepdim=True)
        columns.append(out / (count + total))
    return like_query(torch.stack(columns, -1), value)


register(
    function=linear_attention,
    paper='Linear Attention Mechanism, https://arxiv.org/abs/2007.14902',
    backends=dict(torch=Backend(_torch), reference=Backend(_reference)),
    cases=context_cases('feature_map', FEATURE_MAPS),
    benchmark=narrow_keys,
    flops=context_flops,
)

register(
    function=channel_linear_attention,
    paper='Linear Attention Mechanism, https://arxiv.org/abs/2007.14902',
    backends=dict(
        torch=Backend(_channel_torch), reference=Backend(_channel_reference)
    ),
    tensors=('value',),
    cases=tuple(
        Case(*sizes, options=dict(variant=variant))
        for variant in VARIANTS
        for sizes in (((4, 7), 2), ((7,),), ((1, 5),), ((3, 2, 4), 1, 2, 3))
    ),
    benchmark=lambda batch, height, width, channels: Case(
        (height, width), dim=channels, value_dim=channels, batch=batch
    ),
    # Channels times channels, twice.
    flops=lambda case: (
        4
        * case.batch
        * case.heads
        * math.prod(case.spatial)
        * case.value_dim**2
    ),
)
