# Copyright (c) mmseg_attn contributors.
"""Checks of what the attention operators are given."""

from torch import Tensor


def check_qkv(
    operator: str, query: Tensor, key: Tensor, value: Tensor, scale: float
):
    """Check tensors (B, *spatial, heads, dim) of self-attention on a grid.

    Raises:
        TypeError: Not tensors, not of one floating point dtype, or a scale
            that is no number.
        ValueError: Shapes that do not fit, or not all on one device.
    """
    if not isinstance(scale, (int, float)):
        raise TypeError(
            f'{operator}: scale must be a number, got {type(scale).__name__}. '
            'To learn it, multiply the query by it'
        )
    qkv = dict(query=query, key=key, value=value)
    for name, x in qkv.items():
        if not isinstance(x, Tensor):
            raise TypeError(
                f'{operator}: {name} must be a tensor, got {type(x).__name__}'
            )
    shapes = ', '.join(f'{n} {tuple(x.shape)}' for n, x in qkv.items())
    if query.ndim < 4 or any(x.ndim != query.ndim for x in (key, value)):
        raise ValueError(
            f'{operator}: expected tensors (B, *spatial, heads, dim) with at '
            f'least one spatial axis, all of the same rank, got {shapes}. A '
            'map (B, C, H, W) becomes one by '
            'x.movedim(1, -1).unsqueeze(-2)'
        )
    if query.shape != key.shape or query.shape[:-1] != value.shape[:-1]:
        raise ValueError(
            f'{operator}: query and key must have the same shape and value '
            f'may differ from them in the last axis only, got {shapes}'
        )
    if not all(query.shape) or not value.shape[-1]:
        raise ValueError(f'{operator}: no axis may be empty, got {shapes}')
    dtypes = {x.dtype for x in qkv.values()}
    if len(dtypes) > 1 or not query.is_floating_point():
        raise TypeError(
            f'{operator}: query, key and value must have one floating point '
            f'dtype, got {", ".join(str(x.dtype) for x in qkv.values())}'
        )
    if len({x.device for x in qkv.values()}) > 1:
        raise ValueError(
            f'{operator}: query, key and value must be on one device, got '
            f'{", ".join(str(x.device) for x in qkv.values())}'
        )
    if query.is_meta:
        raise ValueError(
            f'{operator}: tensors on the meta device hold no values. Trace '
            'with torch.export or torch.compile instead'
        )
