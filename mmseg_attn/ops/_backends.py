# Copyright (c) mmseg_attn contributors.
"""Backends of the operators: which there are, which can run here, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _always() -> str | None:
    return None


@dataclass(frozen=True)
class Backend:
    """One implementation of an operator.

    Args:
        run: The implementation.
        reason: Returns why it cannot run on this machine, None if it can.
    """

    run: Callable
    reason: Callable[[], str | None] = _always


# Operator -> backend name -> Backend, the preferred one first.
_OPERATORS: dict[str, dict[str, Backend]] = {}


def register(operator: str, **backends: Backend) -> None:
    """Declare the backends of an operator, the preferred one first."""
    _OPERATORS[operator] = backends


def backends() -> dict[str, dict[str, str | None]]:
    """Operators and their backends on this machine.

    Returns:
        operator -> backend -> why it cannot run here (None: it can). The
        first that can run is the one that ``backend=None`` takes.
    """
    return {
        operator: {name: b.reason() for name, b in table.items()}
        for operator, table in _OPERATORS.items()
    }


def select(operator: str, name: str | None) -> Callable:
    """Implementation of an operator: the named one, or the best that runs.

    Raises:
        ValueError: No backend has this name.
        RuntimeError: The named backend cannot run here.
    """
    table = _OPERATORS[operator]
    if name is None:
        return next(b.run for b in table.values() if b.reason() is None)
    if name not in table:
        raise ValueError(
            f'{operator} has no backend {name!r}: expected one of '
            f'{", ".join(map(repr, table))}, or None for the best one'
        )
    if reason := table[name].reason():
        raise RuntimeError(
            f'backend {name!r} of {operator} cannot run here: {reason}. '
            'Use backend=None for the best one that can'
        )
    return table[name].run
