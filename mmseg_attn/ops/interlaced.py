# Copyright (c) mmseg_attn contributors.
"""Interlaced sparse self-attention: within strided grids or windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .core import device, fused, groups
from .core.autograd import Attention, Engine, is_traced, no_autocast, widen
from .core.checks import check_choice, check_qkv
from .core.engines import engine_of, triton_backend
from .core.reference import masked_attention, positions
from .declare import Backend, Case, attention_flops, register, select

SPANS = ('long', 'short')
PADDINGS = ('attend', 'mask')

# From so many members on, flash attention of copied groups was ahead of the
# kernels on an H100, in bf16 with keys of 256 and values of 512 channels: of
# 512 members in training (1.75 ms against 2.46 in fp16, from
# tools/benchmark/results/h100/float16), of 2048 in the forward, too.
_LARGE = 512


def interlaced_sparse_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    partition: Sequence[int],
    span: str,
    padding: str = 'attend',
    scale: float = 1.0,
    backend: str | None = None,
) -> Tensor:
    """One of the two halves of interlaced sparse self-attention.

    With a partition of P along an axis, position y belongs to cell y // P of
    the axis and has the place y % P in it. ``span='long'``: a position
    attends to those of the same place in all cells, a strided grid.
    ``span='short'``: to its own cell, a window of P positions a side. The
    paper does the long, then the short, each with its own projections, so
    that every output sees every input.

    Args:
        query: (B, *spatial, heads, dim), with one or more spatial axes.
        key: (B, *spatial, heads, dim).
        value: (B, *spatial, heads, value_dim).
        partition: P of each spatial axis, in positions.
        span: ``'long'`` or ``'short'``.
        padding: A grid that P does not divide is padded, half before and
            half (the larger) behind, and the output is cropped.
            ``'attend'``: the padded zeros are keys and values like others,
            as in the official code. ``'mask'``: nothing attends to them.
        scale: Factor of the scores before the softmax, a number. That of the
            paper is dim ** -0.5.
        backend: ``'triton'`` (CUDA) or ``'torch'`` (any device), which keep
            no affinity for the backward and are differentiable once,
            ``'reference'`` (dense attention with a mask) or None for the
            best that can run.

    Returns:
        (B, *spatial, heads, value_dim), in the dtype of the inputs. The
        softmax and all sums of fp16 and bf16 inputs are in fp32.

    Raises:
        TypeError: Inputs are not tensors of one floating point dtype.
        ValueError: Shapes, partition, span or padding that do not fit, or an
            unknown backend.
        RuntimeError: The named backend cannot run here.

    Examples:
        >>> import torch
        >>> from mmseg_attn.ops import interlaced_sparse_attention
        >>> query, key, value = torch.randn(3, 1, 32, 48, 1, 64)
        >>> given = dict(partition=(8, 8), scale=64**-0.5)
        >>> value = interlaced_sparse_attention(
        ...     query, key, value, span='long', **given
        ... )
        >>> interlaced_sparse_attention(
        ...     query, key, value, span='short', **given
        ... ).shape
        torch.Size([1, 32, 48, 1, 64])

    Interlaced Sparse Self-Attention, https://arxiv.org/abs/1907.12273,
    section 3.2. The official module pads the map before it projects query,
    key and value: to reproduce it on sizes that do not divide, pad there.
    """
    name = 'interlaced_sparse_attention'
    check_qkv(name, query, key, value, scale)
    check_choice(name, 'span', span, SPANS)
    check_choice(name, 'padding', padding, PADDINGS)
    partition = _checked_partition(name, partition, query)
    run = select(name, backend, query, key, value)
    return run(query, key, value, scale, partition, span, padding)


def _checked_partition(operator, partition, query):
    axes = query.ndim - 3
    if (
        not isinstance(partition, Sequence)
        or len(partition) != axes
        or not all(isinstance(p, int) and p > 0 for p in partition)
    ):
        raise ValueError(
            f'{operator}: partition must be {axes} positive integers, one '
            f'for each spatial axis of query {tuple(query.shape)}, got '
            f'{partition!r}'
        )
    return tuple(partition)


def pads_of(
    spatial: Sequence[int], partition: Sequence[int]
) -> list[tuple[int, int]]:
    """Padding (before, behind) of each axis, the smaller half before."""
    # Not -n % p, of which exporters cannot tell that it fills up to a
    # multiple of p.
    pads = [
        (n + p - 1) // p * p - n
        for n, p in zip(spatial, partition, strict=True)
    ]
    return [(pad // 2, pad - pad // 2) for pad in pads]


def _pad(x, pads):
    # F.pad counts the axes from the last.
    return F.pad(x, (0, 0, 0, 0, *(n for pair in pads[::-1] for n in pair)))


def _crop(x, pads, spatial):
    for axis, ((before, _), n) in enumerate(zip(pads, spatial, strict=True)):
        x = x.narrow(1 + axis, before, n)
    return x


def _key_bias(query, pads):
    """0 for keys, a large negative number for the padding around them.

    Finite, so that a group of nothing but padding has no NaN.
    """
    # Contiguous whatever the query's strides: so the kernels read it.
    ones = torch.ones_like(
        widen(query[..., :1]), memory_format=torch.contiguous_format
    )
    return (1 - _pad(ones, pads)) * (torch.finfo(ones.dtype).min / 4)


def _order(axes, span):
    """Order of (B, cell, place, cell, place, ..., heads, dim) in groups."""
    cells, places = range(1, 1 + 2 * axes, 2), range(2, 2 + 2 * axes, 2)
    lead, members = (places, cells) if span == 'long' else (cells, places)
    return 0, 1 + 2 * axes, *lead, *members, 2 + 2 * axes


def _split(partition, span, x):
    """View (B, *spatial, heads, dim) as (B, heads, *groups, *members, dim)."""
    halves = [
        length
        for n, p in zip(x.shape[1:-2], partition, strict=True)
        for length in (n // p, p)
    ]
    x = x.view(x.shape[0], *halves, *x.shape[-2:])
    return x.permute(_order(len(partition), span))


def _reference(query, key, value, scale, partition, span, padding):
    spatial = query.shape[1:-2]
    pads = pads_of(spatial, partition)
    q, k, v = (_pad(x, pads) for x in (query, key, value))
    sides = torch.tensor(partition, device=query.device)
    grid = positions(q)
    mark = grid % sides if span == 'long' else grid // sides
    mask = (mark[:, None] == mark[None]).all(-1)
    if padding == 'mask':
        real = _key_bias(query[:1, ..., :1, :], pads).flatten() == 0
        mask &= real | ~real[:, None]
    return _crop(masked_attention(q, k, v, mask, scale), pads, spatial)


def _backend(name):
    def run(query, key, value, scale, partition, span, padding):
        options = scale, partition, span, padding
        return _run(name, query, key, value, *options)

    return run


def _limits(query, key, value):
    axes = query.ndim - 3
    return f'needs at most 2 spatial axes, got {axes}' if axes > 2 else None


def _run(backend, query, key, value, scale, partition, span, padding):
    spatial = query.shape[1:-2]
    pads = pads_of(spatial, partition)
    given = dict(scale=scale, partition=partition, span=span)
    tracing = is_traced()
    if not tracing and not any(map(any, pads)):
        return _attend(backend, query, key, value, **given)
    bias = _key_bias(query, pads) if padding == 'mask' else None
    qkv = [_pad(x, pads) for x in (query, key, value)]
    if tracing:
        with no_autocast(query):
            out = _whole(_plain, *qkv, bias=bias, **given)
        return _positions_of(out, pads, spatial, partition).to(value.dtype)
    out = _attend(backend, *qkv, bias=bias, **given)
    return _crop(out, pads, spatial)


def _attend(backend, query, key, value, *, scale, partition, span, bias=None):
    attend = _by_torch(backend, query, value, partition, span, bias)
    if attend:
        with no_autocast(query):
            out = _whole(
                *(attend, query, key, value),
                scale=scale,
                partition=partition,
                span=span,
                bias=bias,
            )
        return out.reshape(value.shape)
    pattern = partial(_split, partition, span), len(partition), False
    given = dict(patterns=[pattern], scale=scale, bias=bias)
    torchs = Engine(
        partial(groups.attend, **given),
        partial(groups.attend_backward, **given),
    )

    def patterns(query):
        from .kernels import lines

        cut = lines.strided if span == 'long' else lines.windows
        return [cut(query.shape, partition)]

    engine = engine_of(backend, patterns, torchs, scale, bias)
    return Attention.apply(query, key, value, engine)


def _by_torch(backend, query, value, partition, span, bias):
    """Attention within groups by torch's fused kernel, or None, on a GPU.

    In fp32 the kernels do not take the paper's keys. Weights that are no
    larger than the value are cheaper kept than computed again; torch's fused
    kernel, which computes them again, wants rows of 16 bytes. Narrow floats
    go to flash attention if a group is large, at the price of copies.
    """
    if not device.on_gpu(query) or backend == 'triton':
        return None
    members = math.prod(partition)
    if span == 'long':
        members = query.shape[1:-2].numel() // members
    if query.dtype == torch.float32 and backend == 'torch':
        if members <= value.shape[-1]:
            return _plain
        aligned = query.shape[-1] % 4 == value.shape[-1] % 4 == 0
        return _fused if aligned else None
    large = members >= _LARGE and bias is None
    return _fused if large and fused.takes_flash(query) else None


def _plain(query, key, value, bias, scale):
    query, key, value = (widen(x) for x in (query, key, value))
    scores = scale * query @ key.mT
    if bias is not None:
        scores = scores + bias
    return scores.softmax(-1) @ value


def _fused(query, key, value, bias, scale):
    # Its kernels take four axes.
    qkv = (x.flatten(0, -3).unsqueeze(1) for x in (query, key, value))
    if bias is not None:
        members = bias.shape[-1]
        bias = bias.flatten(0, -3).unsqueeze(1)
        bias = bias.expand(-1, -1, members, -1)
    out = fused.attend(*qkv, scale=scale, bias=bias)
    return out.view(value.shape)


def _whole(attend, query, key, value, *, scale, partition, span, bias):
    """The same sum of standard operators alone, with whole tensors.

    Args:
        attend: (query, key, value, bias, scale) -> attention within groups
            (..., members, dim), the bias being (..., 1, members) or None.

    Returns:
        (B, cell, place, cell, place, ..., heads, value_dim).
    """
    axes = len(partition)

    def split(x):
        # Contiguous first: exporters cannot tell how else it would flatten.
        return _split(partition, span, x.contiguous()).contiguous()

    q, k, v = (split(x) for x in (query, key, value))
    shape = v.shape
    q, k, v = (x.flatten(-1 - axes, -2) for x in (q, k, v))
    if bias is not None:
        bias = split(bias).flatten(-1 - axes, -2).mT
    out = attend(q, k, v, bias, scale).view(shape)
    order = _order(axes, span)
    return out.permute(sorted(range(len(order)), key=order.__getitem__))


def _positions_of(x, pads, spatial, partition):
    """(B, cell, place, cell, place, ..., heads, dim) at the real positions.

    By index: of views and slices exporters would have to prove that they fit
    every size.
    """
    index = []
    for axis, p in enumerate(partition):
        position = torch.arange(spatial[axis], device=x.device)
        position = position + pads[axis][0]
        position = position.view(-1, *[1] * (len(partition) - 1 - axis))
        index += [position // p, position % p]
    return x[(slice(None), *index)]


def _flops(case):
    partition, span = case.options['partition'], case.options['span']
    spatial = case.spatial
    pads = pads_of(spatial, partition)
    padded = [n + sum(pad) for n, pad in zip(spatial, pads, strict=True)]
    keys = math.prod(partition)
    if span == 'long':
        keys = math.prod(padded) // keys
    return attention_flops(replace(case, spatial=tuple(padded)), keys)


register(
    function=interlaced_sparse_attention,
    paper='Interlaced Sparse Self-Attention, https://arxiv.org/abs/1907.12273',
    backends=dict(
        triton=triton_backend(_backend, _limits),
        torch=Backend(_backend('torch')),
        reference=Backend(_reference),
    ),
    cases=tuple(
        Case(spatial, options=dict(partition=p, span=span, **options), **sizes)
        for span in SPANS
        for spatial, p, options, sizes in (
            ((4, 6), (2, 3), dict(scale=0.7), dict(heads=2)),
            ((5, 7), (3, 4), dict(), dict()),
            ((5, 7), (3, 4), dict(padding='mask'), dict(heads=2)),
            ((1, 6), (4, 4), dict(padding='mask'), dict()),
            ((7,), (3,), dict(), dict()),
            ((3, 2, 4), (2, 2, 2), dict(), dict(heads=2, batch=1)),
            ((33, 17), (4, 8), dict(), dict(dim=16, value_dim=24)),
        )
    ),
    benchmark=lambda batch, height, width, channels: Case(
        (height, width),
        dim=channels // 2,
        value_dim=channels,
        batch=batch,
        options=dict(partition=(8, 8), span='long'),
    ),
    flops=_flops,
)
