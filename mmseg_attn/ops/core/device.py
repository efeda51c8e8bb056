# Copyright (c) mmseg_attn contributors.
"""What the operators ask about a device.

On a CPU the work is cut into blocks that stay in the processor's cache; on a
GPU it is few launches over whole tensors. So that the cost on a GPU can be
counted without one, tensors on the meta device go the GPU's way within
:func:`counting`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

_counting = False


@contextmanager
def counting() -> Iterator[None]:
    """Let tensors on the meta device stand for those of a CUDA device."""
    global _counting
    before, _counting = _counting, True
    try:
        yield
    finally:
        _counting = before


def is_counting() -> bool:
    """Whether tensors on the meta device stand for CUDA's."""
    return _counting


def on_gpu(x: Tensor) -> bool:
    """Whether a tensor goes the GPU's way."""
    return x.device.type != 'cpu'


def tf32_is_allowed() -> bool:
    """Whether fp32 products on CUDA may be TF32, by either switch of torch.

    The newer switch tells what the older was set to; not the other way round.
    """
    matmul = torch.backends.cuda.matmul
    try:
        return matmul.fp32_precision == 'tf32'
    except AttributeError:  # torch before 2.9
        return matmul.allow_tf32


@lru_cache
def capability(device: torch.device) -> tuple[int, int]:
    """Compute capability of a CUDA device."""
    return torch.cuda.get_device_capability(device)
