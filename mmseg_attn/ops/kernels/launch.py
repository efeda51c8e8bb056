# Copyright (c) mmseg_attn contributors.
"""How Triton kernels are launched, and what a launch costs.

Each launch declares the bytes that it must move and its floating point
operations. On the meta device nothing is run: the declarations alone are
recorded, which counts the cost of the CUDA path without a GPU.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.device import capability, is_counting

try:
    import triton
    import triton.language as tl

    jit = triton.jit
except ImportError:
    triton = tl = None

    def jit(function=None, **_):
        """Leaves the function as it is where there is no Triton."""
        return function or jit


# That the kernels take.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'


class KernelFailed(RuntimeError):
    """A kernel that does not compile for this card or does not fit on it."""


class Launch(NamedTuple):
    """What a launch declares.

    Attributes:
        name: Name of the kernel.
        read, written: Bytes that must come and go at least once: of each
            tensor what the launch touches, however often.
        flops: Operations of its products, 2 for each multiply-add.
        dtype: Dtype of the products' operands.
        precision: Precision of fp32 products: 'ieee', 'tf32' or 'tf32x3'.
    """

    name: str
    read: int
    written: int
    flops: int
    dtype: torch.dtype
    precision: str = 'ieee'


_record: list[Launch] | None = None


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Collect what is launched."""
    global _record
    before, _record = _record, []
    try:
        yield _record
    finally:
        _record = before


# Those of triton are wrapped for kernels: 5 to 10 us a call.
def cdiv(a: int, b: int) -> int:
    """How many times b fits into a, rounded up."""
    return -(-a // b)


def power(n: int) -> int:
    """The least power of two that is not below n."""
    return 1 << (n - 1).bit_length()


def nbytes(*tensors: Tensor | None) -> int:
    """Bytes of the elements of tensors; one that is None has none."""
    return sum(x.numel() * x.element_size() for x in tensors if x is not None)


def launch(
    kernel: Any,
    grid: Sequence[int],
    *arguments: Any,
    on: Tensor,
    reads: Sequence[Tensor | None],
    writes: Sequence[Tensor | None],
    flops: int = 0,
    precision: str = 'ieee',
    **options: Any,
) -> None:
    """Run a kernel, or on the meta device only say so.

    Args:
        kernel: A function of triton.jit.
        grid: Numbers of programs.
        arguments, options: What the kernel is given.
        on: A tensor on the device, in the dtype of the products.
        reads, writes: Tensors of which each element is read or written. One
            that is read and written stands in both.
        flops: Operations of the products.
        precision: Precision of fp32 products.

    Raises:
        KernelFailed: The kernel needs more shared memory than the card has,
            or it does not compile.
    """
    if _record is not None:
        _record.append(
            Launch(
                kernel.__name__,
                nbytes(*reads),
                nbytes(*writes),
                flops,
                on.dtype,
                precision,
            )
        )
    if on.is_meta:
        return
    with _on_device_of(on):
        try:
            kernel[tuple(grid)](*arguments, **options)
        except Exception as error:
            if INTERPRETED or 'Triton Error [CUDA]' in str(error):
                raise  # nothing that another way would mend
            lines = str(error).strip().splitlines() or ['no message']
            raise KernelFailed(
                f'the Triton kernel {kernel.__name__} cannot run here '
                f'({type(error).__name__}: {lines[-1]})'
            ) from error


def _on_device_of(x):
    """Triton takes the current device."""
    if x.is_cuda and x.get_device() != torch.cuda.current_device():
        return torch.cuda.device_of(x)
    return nullcontext()


# What a kernel failed for -> why: it is not compiled again each time.
failures: dict[tuple, str] = {}


def attempt(
    kind: tuple, whose: Callable[[], str], run: Callable
) -> tuple[bool, Any]:
    """Run kernels that torch can stand in for.

    Args:
        kind: What their failure is remembered for.
        whose: Says the same in words, for the one warning that says why.
        run: Launches the kernels; it takes nothing.

    Returns:
        Whether it ran, now and before, and what it returned.
    """
    if kind in failures:
        return False, None
    try:
        return True, run()
    except KernelFailed as error:
        failures[kind] = str(error)
        message = f'{error}: torch is used instead for {whose()}'
        warnings.warn(message, stacklevel=3)
        return False, None


def reason(device: torch.device) -> str | None:
    """Why the kernels cannot run on a device, None if they can."""
    if triton is None:
        return 'triton is not installed: pip install triton'
    if device.type == 'meta' and is_counting():
        return None
    if INTERPRETED:
        return None
    if device.type != 'cuda':
        return f'needs a CUDA device, got {device.type}'
    if torch.version.hip:
        return 'needs an NVIDIA GPU'
    if capability(device) < (8, 0):
        return 'needs a GPU of compute capability 8.0 or more'
    return None
