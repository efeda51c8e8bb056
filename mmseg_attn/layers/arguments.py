# Copyright (c) mmseg_attn contributors.
"""Arguments of layers that cannot work are refused when a layer is made."""

import math


def check_counts(layer: str, **counts: int) -> None:
    """Refuse what is no number of channels, heads or the like.

    Args:
        layer: Name of the layer, for the message.
        **counts: By the names of the arguments.

    Raises:
        ValueError: One is no whole number of at least 1.
    """
    for name, value in counts.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or value < 1:
            raise ValueError(
                f'{layer}: {name} must be a whole number of at least 1, got '
                f'{value!r}'
            )


def given(**values: object) -> dict:
    """Leave out what is None and stands for a default."""
    return {name: v for name, v in values.items() if v is not None}


def check_numbers(
    layer: str, least: float = -math.inf, **numbers: float
) -> None:
    """Refuse what is no finite number.

    Args:
        layer: Name of the layer, for the message.
        least: None may be below it.
        **numbers: By the names of the arguments.

    Raises:
        ValueError: One is text, NaN, infinite or too small.
    """
    for name, value in numbers.items():
        number = isinstance(value, (int, float)) and math.isfinite(value)
        if not number or value < least:
            bound = f' not below {least:g}' if math.isfinite(least) else ''
            raise ValueError(
                f'{layer}: {name} must be a finite number{bound}, got '
                f'{value!r}'
            )


def check_shares(layer: str, **shares: float) -> None:
    """Refuse what is no share of values that are dropped.

    Args:
        layer: Name of the layer, for the message.
        **shares: By the names of the arguments.

    Raises:
        ValueError: One is no number from 0 to below 1.
    """
    for name, value in shares.items():
        if not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise ValueError(
                f'{layer}: {name} must be a number from 0 to below 1, got '
                f'{value!r}'
            )


def check_configs(layer: str, **configs: dict | None) -> None:
    """Refuse what is no config of a convolution, norm or activation.

    Args:
        layer: Name of the layer, for the message.
        **configs: By the names of the arguments; None leaves the part out.

    Raises:
        ValueError: One is neither None nor a dict with a type.
    """
    for name, value in configs.items():
        if value is None or (isinstance(value, dict) and 'type' in value):
            continue
        raise ValueError(
            f'{layer}: {name} must be a dict with a type, or None, got '
            f'{value!r}'
        )
