# Copyright (c) mmseg_attn contributors.
"""Attention within lines, merged over several patterns, by Triton kernels.

The contract is that of :mod:`..core.groups`, with :class:`.lines.Lines` for
patterns and pixels in rows: tensors stay in their own dtype, nothing is
copied, and no affinity is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import tiles
from .backward import (
    line_gradients,
    score_gradients,
    value_gradients,
)
from .forward import attend_crossing_lines, attend_lines
from .launch import DTYPES, launch, triton
from .lines import Lines

try:
    from triton.tools.tensor_descriptor import TensorDescriptor
except ImportError:  # an older Triton, or none
    TensorDescriptor = None

# Widest keys by bytes of an element: wider ones spill in fp32.
MAX_WIDTH = {2: 256, 4: 128}


def limits(query: Tensor, key: Tensor, value: Tensor) -> str | None:
    """What of (B, *spatial, heads, dim) inputs the kernels cannot do."""
    if query.dtype not in DTYPES:
        return f'needs float32, bfloat16 or float16, got {query.dtype}'
    most = MAX_WIDTH[key.element_size()]
    if not 8 <= key.shape[-1] <= most:
        return (
            f'needs a key width of 8 to {most} in {key.dtype}, got '
            f'{key.shape[-1]}'
        )
    return None


def _step(x):
    """Stride between the rows of channels."""
    return 0 if x is None else x.view(-1, x.shape[-1]).stride(0)


class Problem:
    """What all kernels are told of a line, and how it is divided.

    Args:
        family: Family of kernels.
        lines: Where the groups of positions lie.
        query, value: Tensors of the problem.
    """

    def __init__(
        self, family: str, lines: Lines, query: Tensor, value: Tensor
    ):
        widths = query.shape[-1], value.shape[-1]
        found = tiles.tile_of(
            family, query.device, query.element_size(), *widths, lines.length
        )
        self.lines, self.tile = lines, found
        narrow = query.dtype != torch.float32
        precision = 'ieee' if narrow else tiles.precision_of_fp32()
        self.options = dict(
            WIDTH=widths[0],
            VALUE_WIDTH=widths[1],
            M=found.M,
            N=found.N,
            D=tiles.power(widths[0]),
            C=found.C,
            LATER=lines.exclude_self,
            NESTED=lines.nested,
            PRECISION=precision,
            num_warps=found.warps,
        )
        self.launch = dict(on=query, precision=precision, **self.options)
        self.programs = lines.count * triton.cdiv(lines.length, found.M)
        self.parts = triton.cdiv(widths[1], found.C)
        # Pairs of a query and a key, twice: a product has so many operations
        # for each channel.
        self.pairs = 2 * lines.count * lines.length**2

    def descriptors(self, *tensors: tuple[Tensor, int, int]) -> list | None:
        """Descriptors for TMA, None where it cannot read or write.

        It wants rows of a multiple of 16 bytes that begin at one, and no row
        that stands for all, as of a gradient that is the same everywhere.

        Args:
            tensors: Each with the rows and the channels of a tile.
        """
        lines = self.lines
        fits = TensorDescriptor and self.tile.tma and not lines.nested
        if not fits or any(
            x.data_ptr() % 16
            or _step(x) * x.element_size() % 16
            or not _step(x)
            for x, _, _ in tensors
        ):
            return None
        outer = lines.count // lines.n2
        return [
            TensorDescriptor(
                x,
                [outer, lines.length, lines.n2, x.shape[-1]],
                [lines.a0 * s, lines.near * s, s, 1],
                [1, rows, 1, channels],
            )
            for x, rows, channels in tensors
            for s in [_step(x)]
        ]


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    patterns: Sequence[Lines],
    scale: float,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of each position over its lines in all patterns.

    Args:
        query, key: (B, *spatial, heads, dim), in float32, bfloat16 or
            float16 and within :func:`limits`. Rows of channels lie one
            stride apart: ``x.view(-1, dim)`` works.
        value: (B, *spatial, heads, value_dim), likewise.
        patterns: The first must count the own position, the others not.
        scale: Factor of the scores.
        bias: Added to the scores of each key, (B, *spatial, heads, 1), fp32.

    Returns:
        The output, of value's shape and dtype, and the log-sum-exp of the
        scores, (B, *spatial, heads, 1), in fp32.
    """
    out = torch.empty(value.shape, dtype=value.dtype, device=value.device)
    lse = None
    if len(patterns) == 2:
        p = Problem('forward', max(patterns, key=_length), query, value)
        if p.tile.together and not any(x.nested for x in patterns):
            return out, _attend_crossing(
                p, query, key, value, out, patterns, scale
            )
    for lines in patterns:
        p = Problem('forward', lines, query, value)
        joint = torch.empty(
            (*out.shape[:-1], 1), dtype=torch.float32, device=out.device
        )
        tensors = query, key, value, out
        width, m, n, c = p.options['D'], p.tile.M, p.tile.N, p.tile.C
        described = p.descriptors(
            (query, m, width), (key, n, width), (value, n, c), (out, m, c)
        )
        launch(
            attend_lines, [p.programs * p.parts],
            *(described or tensors), bias, lse, joint, *map(_step, tensors),
            *lines.place, float(scale),
            reads=(query, key, value, bias, lse, None if lse is None else out),
            writes=(out, joint),
            flops=p.pairs * (p.parts * query.shape[-1] + value.shape[-1]),
            TMA=bool(described), STAGES=p.tile.stages, **p.launch,
        )  # fmt: skip
        lse = joint
    return out, lse


def _length(lines):
    return lines.length


def _attend_crossing(p, query, key, value, out, patterns, scale):
    """The two patterns of criss-cross attention in one launch."""
    before, joint = (
        torch.empty(
            (*out.shape[:-1], 1), dtype=torch.float32, device=out.device
        )
        for _ in range(2)
    )
    pictures = len(query)
    groups = pictures * p.parts
    queue = torch.zeros(1 + groups, dtype=torch.int32, device=out.device)
    tensors = query, key, value, out
    tiles_of = [x.count * triton.cdiv(x.length, p.tile.M) for x in patterns]
    pairs = sum(2 * x.count * x.length**2 for x in patterns)
    options = {
        name: option
        for name, option in p.launch.items()
        if name not in ('LATER', 'NESTED')
    }
    launch(
        attend_crossing_lines, [p.parts * sum(tiles_of)],
        *tensors, before, joint, queue, *map(_step, tensors),
        *(
            n
            for x in patterns
            for n in (x.length, x.near, x.a0, x.count // pictures)
        ),
        groups, float(scale),
        reads=(query, key, value, out, before, queue),
        writes=(out, before, joint, queue),
        flops=pairs * (p.parts * query.shape[-1] + value.shape[-1]),
        STAGES=p.tile.stages, **options,
    )  # fmt: skip
    return joint


def attend_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    delta: Tensor,
    lse: Tensor,
    *,
    patterns: Sequence[Lines],
    scale: float,
    out: tuple[Tensor | None, Tensor | None, Tensor | None],
    bias: Tensor | None = None,
) -> None:
    """Write the gradients of :func:`attend` for query, key and value to out.

    Args:
        grad, query, key, value: Tensors of one dtype, as for
            :func:`attend`.
        delta: <grad, output of attend> at each position,
            (B, *spatial, heads, 1), in fp32 and contiguous like lse.
        lse: What attend returned.
        patterns, scale, bias: As for attend.
        out: Where to write each gradient, in rows as the inputs; None
            leaves it out. That of value may be written over value if it is
            the only one.
    """
    inputs = grad, query, key, value, bias, delta, lse
    if torch.are_deterministic_algorithms_enabled():
        for lines in patterns:
            _in_fixed_order(*inputs, lines, scale, *out)
        return
    dq, dk, dv = out
    # What several programs or patterns add to is fp32: memory of its own
    # unless the result is that.
    query_sum = _wide(dq)
    key_sum = _wide(dk) if len(patterns) > 1 else dk
    if query_sum is not None:
        query_sum.zero_()
    for lines in patterns:
        _at_once(*inputs, lines, scale, query_sum, key_sum, dv)
    for x, total in ((dq, query_sum), (dk, key_sum)):
        if x is not total:
            x.copy_(total)


def _wide(x):
    if x is None or x.dtype == torch.float32:
        return x
    return torch.empty(x.shape, dtype=torch.float32, device=x.device)


def _at_once(
    grad, query, key, value, bias, delta, lse, lines, scale, dq, dk, dv
):
    p = Problem('backward', lines, query, value)
    width, m, n, c = p.options['D'], p.tile.M, p.tile.N, p.tile.C
    rows = grad, query, key, value
    tiled = [(grad, n, c), (query, n, width), (key, m, width), (value, m, c)]
    described = p.descriptors(*tiled, *([] if dv is None else [(dv, m, c)]))
    tensors, to = rows, dv
    if described:
        tensors = described[:4]
        to = dv if dv is None else described[4]
    for_scores = [x for x in (dq, dk) if x is not None]
    again = (dk, dv) if lines.exclude_self else ()
    products = p.parts * query.shape[-1] * (1 + len(for_scores))
    products += value.shape[-1] * (bool(for_scores) + (dv is not None))
    launch(
        line_gradients, [p.programs],
        *tensors, bias, delta, lse, dq, dk, to,
        *map(_step, (*rows, dq, dk, dv)), *lines.place, float(scale),
        reads=(
            grad, query, key, value if for_scores else None, bias,
            delta if for_scores else None, lse, dq, *again,
        ),
        writes=(*for_scores, dv),
        flops=p.pairs * products,
        TMA=bool(described), STAGES=p.tile.stages, **p.launch,
    )  # fmt: skip


def _in_fixed_order(
    grad, query, key, value, bias, delta, lse, lines, scale, dq, dk, dv
):
    later = lines.exclude_self
    width, value_width = query.shape[-1], value.shape[-1]
    for keys, dx, *rows in (
        (False, dq, query, key, grad, value),
        (True, dk, key, query, value, grad),
    ):
        if dx is not None:
            p = Problem('scores', lines, query, value)
            launch(
                score_gradients, [p.programs],
                *rows, bias, delta, lse, dx, *map(_step, (*rows, dx)),
                *lines.place, float(scale),
                reads=(*rows, bias, delta, lse, dx if later else None),
                writes=(dx,),
                flops=p.pairs * (2 * width + value_width),
                KEYS=keys, num_stages=p.tile.stages, **p.launch,
            )  # fmt: skip
    if dv is not None:
        p = Problem('values', lines, query, value)
        rows = grad, query, key
        launch(
            value_gradients, [p.programs * p.parts],
            *rows, bias, lse, dv, *map(_step, (*rows, dv)),
            *lines.place, float(scale),
            reads=(*rows, bias, lse, dv if later else None),
            writes=(dv,),
            flops=p.pairs * (p.parts * width + value_width),
            num_stages=p.tile.stages, **p.launch,
        )  # fmt: skip
