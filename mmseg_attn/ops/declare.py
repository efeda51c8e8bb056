# Copyright (c) mmseg_attn contributors.
"""What there is to know of each operator, declared once.

The tests, the benchmark, ``python -m mmseg_attn info`` and the README's
support table read these declarations. An operator's file makes its own by
:func:`register`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Backend:
    """One implementation of an operator.

    Attributes:
        run: The implementation. It takes the operator's tensors, then its
            options in the order of the signature.
        reason: From a device to the reason why the backend cannot run on it,
            None if it can.
        limits: From the operator's tensors to the reason why it cannot run
            on these, None if it can.
        by_default: From the first tensor to whether ``backend=None`` may
            take this backend.
        default: What ``backend=None`` runs then, if it is not ``run``.
    """

    run: Callable
    reason: Callable[[torch.device], str | None] = lambda device: None
    limits: Callable[..., str | None] = lambda *tensors: None
    by_default: Callable[[Tensor], bool] = lambda tensor: True
    default: Callable | None = None

    def refuses(self, *tensors: Tensor) -> str | None:
        """Why it cannot run on these tensors, None if it can."""
        return self.reason(tensors[0].device) or self.limits(*tensors)


@dataclass(frozen=True)
class Case:
    """Sizes and options of one call, for tests and benchmarks.

    Attributes:
        spatial: Lengths of the spatial axes.
        heads, dim, value_dim, batch: Sizes in the operators' layout
            (batch, *spatial, heads, dim).
        key_spatial: Spatial axes of keys and values, if they differ.
        options: Keyword arguments of the operator.
    """

    spatial: tuple[int, ...]
    heads: int = 1
    dim: int = 3
    value_dim: int = 5
    batch: int = 2
    key_spatial: tuple[int, ...] | None = None
    options: dict = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of query, key and value."""
        keys = self.key_spatial or self.spatial
        return dict(
            query=(self.batch, *self.spatial, self.heads, self.dim),
            key=(self.batch, *keys, self.heads, self.dim),
            value=(self.batch, *keys, self.heads, self.value_dim),
        )

    @property
    def positions(self) -> int:
        """Query positions of all pictures and heads."""
        return self.batch * math.prod(self.spatial) * self.heads


def narrow_keys(
    batch: int, height: int, width: int, channels: int, **options: Any
) -> Case:
    """The widths of CCNet and others: keys of an eighth of the channels."""
    return Case(
        (height, width),
        dim=channels // 8,
        value_dim=channels,
        batch=batch,
        options=options,
    )


def attention_flops(case: Case, keys: int) -> int:
    """Operations of two products with so many keys for each query.

    Args:
        case: Sizes of the problem.
        keys: Number of keys that each query attends to.

    Returns:
        Floating point operations, 2 for each multiply-add.
    """
    return 2 * case.positions * keys * (case.dim + case.value_dim)


@dataclass(frozen=True)
class Operator:
    """Declaration of an operator.

    Attributes:
        function: The public function.
        paper: Whose equations it computes: name and address.
        backends: Backends by name, the preferred first, ``'reference'``
            last: the paper's equation, dense and readable.
        cases: Small problems on which all backends must agree.
        benchmark: From (batch, height, width, channels) to the problem at
            the widths of the paper's network.
        flops: From a case to the floating point operations of the forward,
            2 for each multiply-add, counted for the products alone.
        tensors: Names of the tensor arguments.
        dtypes: Dtypes that its inputs may have.
        tolerance: Largest difference from the reference in float64 on the
            cases.
        loss: How many times the reference's own error in a narrower dtype
            that of the output and that of a gradient may be.
        plain: Whether its torch backend is plain steps with autograd's own
            backward. Such a one must be differentiable any number of times,
            and is not held to what the others cost on a GPU.
    """

    function: Callable
    paper: str
    backends: dict[str, Backend]
    cases: tuple[Case, ...]
    benchmark: Callable[[int, int, int, int], Case]
    flops: Callable[[Case], int]
    tensors: tuple[str, ...] = ('query', 'key', 'value')
    dtypes: tuple[torch.dtype, ...] = (
        torch.float64,
        torch.float32,
        torch.bfloat16,
        torch.float16,
    )
    tolerance: float = 1e-12
    loss: tuple[float, float] = (2.0, 3.0)
    plain: bool = False

    @property
    def name(self) -> str:
        """Name of the public function."""
        return self.function.__name__

    def inputs(self, case: Case, **options: Any) -> list[Tensor]:
        """Random tensors of a case, with the options of ``torch.randn``."""
        shapes = case.shapes
        return [torch.randn(shapes[name], **options) for name in self.tensors]

    def bytes(self, case: Case, itemsize: int) -> int:
        """Bytes that the forward must move: each tensor in and out once."""
        shapes = case.shapes
        output = (*shapes['query'][:-1], shapes[self.tensors[-1]][-1])
        return itemsize * (
            sum(math.prod(shapes[name]) for name in self.tensors)
            + math.prod(output)
        )


OPERATORS: dict[str, Operator] = {}


def register(**declaration: Any) -> None:
    """Declare an operator, with the arguments of :class:`Operator`."""
    operator = Operator(**declaration)
    OPERATORS[operator.name] = operator


def backends(
    device: torch.device | str | None = None,
) -> dict[str, dict[str, str | None]]:
    """Operators and their backends on a device.

    Args:
        device: The device. None means CUDA if there is one, else the CPU.

    Returns:
        By operator and backend the reason why the backend cannot run here,
        None if it can. The first that can is what ``backend=None`` takes.
    """
    device = torch.device(device or _default_device())
    return {
        name: {b: found.reason(device) for b, found in o.backends.items()}
        for name, o in OPERATORS.items()
    }


def _default_device():
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def check_backend(operator: str, name: str | None) -> None:
    """Raise as :func:`select` would, before there are tensors."""
    if name is not None:
        device = torch.device(_default_device())
        _named(operator, name, lambda backend: backend.reason(device))


def select(operator: str, name: str | None, *tensors: Tensor) -> Callable:
    """Implementation of an operator: the named one, or the best that runs.

    Args:
        operator: Name of the operator.
        name: Name of the backend, None for the best.
        tensors: The operator's tensors.

    Returns:
        A function that takes the tensors and the operator's options.

    Raises:
        ValueError: No backend has this name.
        RuntimeError: The named backend cannot run on these tensors.
    """
    if name is None:
        _, best = _best(operator, *tensors)
        return best.default or best.run
    return OPERATORS[operator].backends[chosen(operator, name, *tensors)].run


def chosen(operator: str, name: str | None, *tensors: Tensor) -> str:
    """What :func:`select` takes, as the engines of attention are called.

    Args:
        operator, name, tensors: As for :func:`select`.

    Returns:
        The given name, or the name of the best backend that runs, with
        ``' or torch'`` behind it where torch stands in for kernels that
        fail.
    """
    if name is not None:
        return _named(operator, name, lambda b: b.refuses(*tensors))
    found, best = _best(operator, *tensors)
    return f'{found} or torch' if best.default else found


def _best(operator, *tensors):
    return next(
        (name, b)
        for name, b in OPERATORS[operator].backends.items()
        if b.by_default(tensors[0]) and not b.refuses(*tensors)
    )


def _named(operator, name, refusal):
    table = OPERATORS[operator].backends
    if name not in table:
        raise ValueError(
            f'{operator} has no backend {name!r}: expected one of '
            f'{", ".join(map(repr, table))}, or None for the best one'
        )
    if reason := refusal(table[name]):
        raise RuntimeError(
            f'backend {name!r} of {operator} cannot run here: {reason}. '
            'Use backend=None for the best one that can'
        )
    return name
