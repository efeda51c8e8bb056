# Copyright (c) mmseg_attn contributors.
"""Attention within lines, merged over several patterns, by Triton kernels.

The contract is that of :mod:`..core.groups`, with :class:`.lines.Lines` for
patterns and pixels in rows: tensors stay in their own dtype, nothing is
copied, and no affinity is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ..core.autograd import row_step
from . import tiles
from .backward import (
    line_gradients,
    score_gradients,
    value_gradients,
)
from .forward import attend_crossing_lines, attend_lines
from .launch import DTYPES, cdiv, launch
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
    return 0 if x is None else row_step(x)


class Problem:
    """What all kernels are told of a line, and how it is divided.

    Args:
        lines: Where the groups of positions lie.
        found: The tile.
        widths: Channels of keys and of values.
        precision: Precision of the products.
    """

    def __init__(
        self,
        lines: Lines,
        found: tiles.Tile,
        widths: tuple[int, int],
        precision: str,
    ):
        self.lines, self.tile = lines, found
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
        self.launch = dict(precision=precision, **self.options)
        self.programs = lines.count * cdiv(lines.length, found.M)
        self.parts = cdiv(widths[1], found.C)
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
        if not (TensorDescriptor and self.tile.tma) or lines.nested:
            return None
        found = []
        for x, *sides in tensors:
            given = row_step(x), x.shape[-1], x.dtype
            fields = (
                None if x.data_ptr() % 16 else _fields(lines, *given, *sides)
            )
            if fields is None:
                return None
            # What Triton has found right for the fields is not asked again.
            found.append(object.__new__(TensorDescriptor))
            vars(found[-1]).update(fields, base=x)
        return found


@lru_cache(maxsize=1024)
def _fields(lines, step, width, dtype, rows, channels):
    """Those of a descriptor but for its tensor; None if it cannot be one."""
    if not step or step * dtype.itemsize % 16:
        return None
    outer = lines.count // lines.n2
    return vars(
        TensorDescriptor(
            torch.empty(0, dtype=dtype, device='meta'),
            [outer, lines.length, lines.n2, width],
            [lines.a0 * step, lines.near * step, step, 1],
            [1, rows, 1, channels],
        )
    )


def _problem(family, lines, query, value):
    """The :class:`Problem` of tensors, made once for like ones."""
    widths = query.shape[-1], value.shape[-1]
    found = tiles.tile_of(
        family, query.device, query.element_size(), *widths, lines.length
    )
    narrow = query.dtype != torch.float32
    precision = 'ieee' if narrow else tiles.precision_of_fp32()
    return _made(lines, found, widths, precision)


_made = lru_cache(maxsize=1024)(Problem)


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
        p = _problem('forward', max(patterns, key=_length), query, value)
        if p.tile.together and not any(x.nested for x in patterns):
            return out, _attend_crossing(
                p, query, key, value, out, patterns, scale
            )
    for lines in patterns:
        p = _problem('forward', lines, query, value)
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
            TMA=bool(described), STAGES=p.tile.stages, on=query, **p.launch,
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
    tiles_of = [x.count * cdiv(x.length, p.tile.M) for x in patterns]
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
        STAGES=p.tile.stages, on=query, **options,
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
    p = _problem('backward', lines, query, value)
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
        TMA=bool(described), STAGES=p.tile.stages, on=query, **p.launch,
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
            p = _problem('scores', lines, query, value)
            launch(
                score_gradients, [p.programs],
                *rows, bias, delta, lse, dx, *map(_step, (*rows, dx)),
                *lines.place, float(scale),
                reads=(*rows, bias, delta, lse, dx if later else None),
                writes=(dx,),
                flops=p.pairs * (2 * width + value_width),
                KEYS=keys, num_stages=p.tile.stages, on=query, **p.launch,
            )  # fmt: skip
    if dv is not None:
        p = _problem('values', lines, query, value)
        rows = grad, query, key
        launch(
            value_gradients, [p.programs * p.parts],
            *rows, bias, lse, dv, *map(_step, (*rows, dv)),
            *lines.place, float(scale),
            reads=(*rows, bias, lse, dv if later else None),
            writes=(dv,),
            flops=p.pairs * (p.parts * width + value_width),
            num_stages=p.tile.stages, on=query, **p.launch,
        )  # fmt: skip
