# Copyright (c) mmseg_attn contributors.
"""Arguments of mmseg's heads that cannot work, which mmseg takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...layers.arguments import (
    check_configs,
    check_counts,
    check_numbers,
    check_shares,
    given,
)

COUNTS = ('channels', 'num_classes', 'out_channels', 'kernel_size', 'dilation')
CONFIGS = ('conv_cfg', 'norm_cfg', 'act_cfg')


def check_head(head: str, options: dict[str, Any]) -> None:
    """Refuse what a decode head cannot work with.

    Args:
        head: Name of its class, for the message.
        options: Its arguments; those that mmseg's heads do not have are passed
            over.

    Raises:
        ValueError: One cannot be meant; it says which, and what is expected.
    """
    there = given(**options)
    check_counts(head, **{k: there[k] for k in COUNTS if k in there})
    check_configs(head, **{k: v for k, v in options.items() if k in CONFIGS})
    if 'dropout_ratio' in there:
        check_shares(head, dropout_ratio=there['dropout_ratio'])
    if 'threshold' in there:
        check_numbers(head, threshold=there['threshold'])
    if there.get('kernel_size', 1) % 2 == 0:
        raise ValueError(
            f'{head}: kernel_size must be odd, got {there["kernel_size"]}'
        )
    if 'in_channels' in there:
        for width in _each(there['in_channels']):
            check_counts(head, in_channels=width)
    for key in ('in_index', 'ignore_index'):
        values = _each(there.get(key, 0), key == 'in_index')
        if not values or not all(type(value) is int for value in values):
            raise ValueError(
                f'{head}: {key} must be a whole number'
                + (' or several' if key == 'in_index' else '')
                + f', got {there[key]!r}'
            )


def _each(value: object, several: bool = True) -> Sequence:
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    return value if several and listed else [value]
