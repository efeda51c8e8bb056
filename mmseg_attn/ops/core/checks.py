# Copyright (c) mmseg_attn contributors.
"""Checks of what the attention operators are given."""

from collections.abc import Iterable

from torch import Tensor

from .device import is_counting


def check_qkv(
    operator: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float = 1.0,
    cross: bool = False,
) -> None:
    """Check tensors (B, *spatial, heads, dim) of attention on a grid.

    Args:
        operator: Name of the operator, for the message.
        query, key, value: What is to be such tensors.
        scale: What is to be a number.
        cross: Whether keys and values may be of another grid than queries.

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
    if min(x.ndim for x in qkv.values()) < 4 or (
        not cross and len({x.ndim for x in qkv.values()}) > 1
    ):
        raise ValueError(
            f'{operator}: expected tensors (B, *spatial, heads, dim) with at '
            'least one spatial axis, all of the same rank, got '
            f'{_shapes(qkv)}. A map (B, C, H, W) becomes one by '
            'x.movedim(1, -1).unsqueeze(-2)'
        )
    if key.shape[:-1] != value.shape[:-1] or (
        _batch_heads_dim(query) != _batch_heads_dim(key)
        if cross
        else query.shape != key.shape
    ):
        same = 'batch, heads and dim' if cross else 'shape'
        raise ValueError(
            f'{operator}: query and key must have the same {same}, and value '
            f'may differ from key in the last axis only, got {_shapes(qkv)}'
        )
    if not all(query.shape + key.shape + value.shape):
        raise ValueError(
            f'{operator}: no axis may be empty, got {_shapes(qkv)}'
        )
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
    if query.is_meta and not is_counting():
        raise ValueError(
            f'{operator}: tensors on the meta device hold no values. Trace '
            'with torch.export or torch.compile instead'
        )


def check_axis(operator: str, axis: int, query: Tensor) -> int:
    """A spatial axis counted from 0; negative ones count from the last.

    Raises:
        TypeError: Not an integer.
        ValueError: No such spatial axis.
    """
    count = query.ndim - 3
    if not isinstance(axis, int) or isinstance(axis, bool):
        raise TypeError(
            f'{operator}: axis must be an integer, got {type(axis).__name__}'
        )
    if not -count <= axis < count:
        raise ValueError(
            f'{operator}: axis counts the {count} spatial axes of query '
            f'{tuple(query.shape)}: expected {-count} to {count - 1}, got '
            f'{axis}'
        )
    return axis % count


def check_choice(
    operator: str, name: str, value: str, choices: Iterable[str]
) -> None:
    """Check an option against the values it may have.

    Args:
        operator: Name of the operator or layer, for the message.
        name: Name of the option.
        value: Its value.
        choices: The values it may have.

    Raises:
        ValueError: Another value.
    """
    if value not in choices:
        raise ValueError(
            f'{operator}: {name} must be one of '
            f'{", ".join(map(repr, choices))}, got {value!r}'
        )


def _shapes(tensors):
    return ', '.join(f'{n} {tuple(x.shape)}' for n, x in tensors.items())


def _batch_heads_dim(x):
    return x.shape[0], *x.shape[-2:]
