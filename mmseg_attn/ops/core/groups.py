# Copyright (c) mmseg_attn contributors.
"""Softmax attention within groups of positions, merged over several patterns.

A pattern divides the positions of a grid into groups of equal size: the lines
along an axis, windows, strided grids. The softmax over the union of several
patterns' keys is the merge of their own softmaxes by the log-sum-exp (lse).
With the scores s of a query in its group of pattern a and l_a = lse(s),

    lse = logaddexp over a of l_a,
    out = sum over a of exp(l_a - lse) * softmax(s) @ value.

The backward gives every pattern the *joint* out and lse, so that each one's
own backward adds up to the exact gradient:

    p = exp(s - lse),   dvalue += p^T @ g,
    ds = p * (g @ value^T - <g, out>),
    dquery += scale * ds @ key,   dkey += scale * ds^T @ query.

Scores are recomputed in the backward: no affinity outlives its block of
groups. The backward's weights are then exact to the rounding of the lse, in
fp32 about 1e-7 times the score: 1e-3 for scores of 1e4.

On a CPU a block is small enough to stay in the processor's cache, where its
groups are made contiguous for the matrix products; the results are written
through strided views. On a GPU the blocks are large, the products take the
groups of a line as they lie, and narrow floats stay narrow but for the
scores and what is summed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from . import device
from .matmul import accumulator, bmm, bmm_into, operand, write_product

# A function (B, *spatial, heads, dim) -> view (*lead, *members, dim) with at
# least two lead axes, which count the groups; how many axes count a group's
# members; and whether a query leaves out its own position.
Pattern = tuple[Callable[[Tensor], Tensor], int, bool]

# Elements of scores and values in one block. On a CPU 2**19 and 2**20 (2 and
# 4 MiB of fp32) were the fastest of 2**17 .. 2**23.
_CPU_BLOCK = 2**19
# Elements of scores in one block on a GPU, or so many times those of the
# largest map: few launches, and no more memory than the maps have.
_GPU_BLOCK = 2**22
_GPU_SHARE = 1


def _blocks(pattern: Pattern, *tensors: Tensor | None) -> Iterator[list]:
    """Yield views (n, m, *members, dim) of n * m groups; None stays None."""
    split, members, _ = pattern
    views = [x if x is None else split(x) for x in tensors]
    *outer, rows, columns = views[0].shape[: -1 - members]
    step = max(1, _groups_of_a_block(views, members))
    # A block takes groups along the last lead axis, and along the one before
    # if these are few.
    several = max(1, step // columns)
    for index in itertools.product(
        *map(range, outer), range(0, rows, several), range(0, columns, step)
    ):
        *fixed, i, j = index
        where = (*fixed, slice(i, i + several), slice(j, j + step))
        yield [x if x is None else x[where] for x in views]


def _groups_of_a_block(views, members):
    views = [x for x in views if x is not None]
    size = views[0].shape[-1 - members : -1].numel()
    if device.on_gpu(views[0]):
        largest = max(x.numel() for x in views)
        return max(_GPU_BLOCK, _GPU_SHARE * largest) // size**2
    width = max(x.shape[-1] for x in views)
    return _CPU_BLOCK // (size * (size + width))


def _flat(block):
    """A block as groups for the products, (n, m, size, dim)."""
    if block is None:
        return None
    flat = block.flatten(2, -2)
    return flat if device.on_gpu(flat) else flat.contiguous()


def _scores(query, key, bias, scale, exclude_self):
    scores = bmm(query, key.mT)
    if scale != 1.0:
        scores.mul_(scale)
    if bias is not None:
        scores.add_(bias.mT)
    if exclude_self:
        scores.diagonal(dim1=-2, dim2=-1).fill_(-torch.inf)
    return scores


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    patterns: Sequence[Pattern],
    scale: float,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of each position over its groups in all patterns.

    Args:
        query, key: (B, *spatial, heads, dim).
        value: (B, *spatial, heads, value_dim).
        patterns: The first must count the own position, the others not.
        scale: Factor of the scores.
        bias: Added to the scores of each key, (B, *spatial, heads, 1).

    Returns:
        The output, of value's shape, and the log-sum-exp of the scores,
        (B, *spatial, heads, 1).
    """
    out = torch.empty(value.shape, dtype=value.dtype, device=value.device)
    lse = out.new_empty(*out.shape[:-1], 1, dtype=accumulator(out.dtype))
    for pattern in patterns:
        exclude_self = pattern[2]
        for *inputs, o, joint in _blocks(
            pattern, query, key, value, bias, out, lse
        ):
            q, k, v, b = map(_flat, inputs)
            s = _scores(q, k, b, scale, exclude_self)
            peak = s.amax(-1, keepdim=True)
            p = s.softmax(-1)
            # The largest weight is exp(peak - lse): no second exponential.
            own = peak.sub_(p.amax(-1, keepdim=True).log_())
            own = own.view(joint.shape)
            if not exclude_self:
                joint.copy_(own)
                bmm_into(o, p.to(v.dtype), v)
            else:
                # exp(own - joint), but the parts add up to 1 in any dtype.
                part = torch.sigmoid(own - joint)
                torch.logaddexp(joint, own, out=joint)
                o.mul_(1 - part)
                p.mul_(part.view(*p.shape[:-1], 1))
                bmm_into(o, p.to(v.dtype), v, accumulate=True)
    return out, lse


def attend_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    delta: Tensor,
    lse: Tensor,
    *,
    patterns: Sequence[Pattern],
    scale: float,
    out: Sequence[Tensor | None],
    bias: Tensor | None = None,
) -> None:
    """Write the gradients of :func:`attend` for query, key and value to out.

    Args:
        grad: Gradient of the output, of its shape.
        query, key, value, patterns, scale, bias: What attend was given.
        delta: <grad, output of attend> at each position,
            (B, *spatial, heads, 1).
        lse: Log-sum-exp that attend returned.
        out: Where to write each gradient; None leaves it out. That of value
            may be written over value once the other two are known.
    """
    for_scores = out[0] is not None or out[1] is not None
    tensors = (query, key, grad, lse, value if for_scores else None, delta)
    for pattern in patterns:
        again = pattern[2]
        for *inputs, dq, dk, dv in _blocks(pattern, *tensors, bias, *out):
            q, k, g, joint, v, d, b = map(_flat, inputs)
            p = _scores(q, k, b, scale, again).sub_(joint).exp_()
            if dv is not None:
                bmm_into(dv, p.to(g.dtype).mT, g, accumulate=again)
            if not for_scores:
                continue
            ds = p.mul_(bmm(g, v.mT).sub_(d))
            if scale != 1.0:
                ds.mul_(scale)
            ds, factor = operand(ds, k.dtype)
            if dq is not None:
                write_product(dq, ds, k, factor, again)
            if dk is not None:
                write_product(dk, ds.mT, q, factor, again)
