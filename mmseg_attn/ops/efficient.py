# Copyright (c) mmseg_attn contributors.
"""Efficient attention: a context first, then a look at it per position."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from .core.checks import check_choice, check_qkv
from .core.context import context_attention
from .core.features import IDENTITY, SOFTMAX, Rule
from .core.reference import by_heads, like_query
from .declare import Backend, Case, register, select

NORMALIZATIONS = ('softmax', 'scaling')


def efficient_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    normalization: str = 'softmax',
    divisor: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Attention whose cost is linear in the number of positions.

    ``rho_q(Q) (rho_k(K)^T V)``, in this order, per head.

    Args:
        query: (B, *spatial, heads, dim), with one or more spatial axes.
        key: (B, *key_spatial, heads, dim); the keys may be of another grid.
        value: (B, *key_spatial, heads, value_dim).
        normalization: ``'softmax'``: rho_q is the softmax over the channels
            of each query and rho_k that over the positions of each key
            channel. ``'scaling'``: the scores are divided by ``divisor``.
        divisor: Divisor of the scores for ``'scaling'``. None means the
            number of keys, which is the paper's. The author has also named
            sqrt(dim).
        backend: ``'torch'`` (keeps no affinity for the backward;
            differentiable once), ``'reference'`` (dense) or None for the
            best that can run.

    Returns:
        (B, *spatial, heads, value_dim), in the dtype of the inputs. All sums
        of fp16 and bf16 inputs are in fp32.

    Raises:
        TypeError: Inputs are not tensors of one floating point dtype.
        ValueError: Shapes that do not fit, an unknown normalization or
            backend, a divisor that is 0 or not for 'scaling'.
        RuntimeError: The named backend cannot run here.

    Examples:
        >>> import torch
        >>> from mmseg_attn.ops import efficient_attention
        >>> query, key = torch.randn(2, 1, 32, 48, 8, 4)
        >>> value = torch.randn(1, 32, 48, 8, 8)
        >>> efficient_attention(query, key, value).shape
        torch.Size([1, 32, 48, 8, 8])

    Efficient Attention, https://arxiv.org/abs/1812.01243, section 3.2.
    """
    name = 'efficient_attention'
    check_qkv(name, query, key, value, cross=True)
    check_choice(name, 'normalization', normalization, NORMALIZATIONS)
    check_divisor(name, normalization, divisor)
    run = select(name, backend, query, key, value)
    return run(query, key, value, normalization, divisor)


def check_divisor(
    operator: str, normalization: str, divisor: float | None
) -> None:
    """Check the divisor of the scores.

    Args:
        operator: Name of the operator or layer, for the message.
        normalization: How scores become weights.
        divisor: None, or for ``'scaling'`` a number other than 0.

    Raises:
        ValueError: It is another.
    """
    if divisor is None:
        return
    number = isinstance(divisor, (int, float)) and math.isfinite(divisor)
    if normalization != 'scaling' or not number or not divisor:
        raise ValueError(
            f"{operator}: divisor is for normalization='scaling' and must be "
            f'a number other than 0, got divisor={divisor!r} with '
            f'normalization={normalization!r}'
        )


def _count(x):
    return math.prod(x.shape[1:-2])


def _reference(query, key, value, normalization, divisor):
    q, k, v = map(by_heads, (query, key, value))
    if normalization == 'softmax':
        weights = q.softmax(-1) @ k.softmax(-2).mT
    else:
        weights = q @ k.mT / (divisor or _count(key))
    return like_query(weights @ v, query)


def _torch(query, key, value, normalization, divisor):
    if normalization == 'softmax':
        rule = Rule(SOFTMAX, IDENTITY, over_positions=True)
    else:
        rule = Rule(IDENTITY, IDENTITY, divisor=divisor or _count(key))
    return context_attention(query, key, value, rule)


def context_flops(case: Case) -> int:
    """Operations for the context and for its products with the queries."""
    keys = math.prod(case.key_spatial or case.spatial) * case.batch
    positions = case.positions + keys * case.heads
    return 2 * positions * case.dim * case.value_dim


def context_cases(option: str, values: Sequence[str]) -> tuple[Case, ...]:
    """The same small problems with each value of an option."""
    return tuple(
        Case(*sizes, options={option: value})
        for value in values
        for sizes in (
            ((4, 7), 2),
            ((7,),),
            ((4, 7), 2, 3, 5, 2, (3, 2)),
            ((1, 5),),
            ((3, 2, 4), 2, 2, 3, 1),
            ((33, 17), 2, 16, 24),
        )
    )


register(
    function=efficient_attention,
    paper='Efficient Attention, https://arxiv.org/abs/1812.01243',
    backends=dict(torch=Backend(_torch), reference=Backend(_reference)),
    cases=context_cases('normalization', NORMALIZATIONS),
    benchmark=lambda batch, height, width, channels: Case(
        (height, width),
        heads=8,
        dim=channels // 16,
        value_dim=channels // 8,
        batch=batch,
    ),
    flops=context_flops,
)
