# Copyright (c) mmseg_attn contributors.
"""torch's fused attention, by those of its kernels that are right and fast.

On CUDA never cuDNN's: of axial attention in bf16 and fp16 its output was wrong
without a word (on an H100 with torch 2.11, off by 3.6 of the largest value).
Flash attention was the fastest, which wants narrow floats and one width of
keys and values of 256 at most. A wider value goes as several heads of 128
channels, each with the whole key, which is padded to that width: at 97x97
positions in bf16 with keys of 64 and values of 512 channels that took half of
the time of the memory-efficient kernel, with the backward a seventh (the same
card, tools/benchmark/results/h100).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from . import device
from .autograd import is_traced

# Kernel -> whether the user left it on.
KERNELS = {
    SDPBackend.FLASH_ATTENTION: torch.backends.cuda.flash_sdp_enabled,
    SDPBackend.EFFICIENT_ATTENTION: (
        torch.backends.cuda.mem_efficient_sdp_enabled
    ),
    SDPBackend.MATH: torch.backends.cuda.math_sdp_enabled,
}
# Devices that have none of them.
OTHERS = {'mps', 'xpu', 'npu'}
# Channels of a part of the value, and the most that flash attention takes.
PART = 128
WIDEST = 256


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    bias: Tensor | None = None,
) -> Tensor:
    """scaled_dot_product_attention, on a GPU the fastest that is right.

    Args:
        query, key: (N, heads, positions, dim).
        value: (N, heads, positions of the keys, value_dim).
        scale: Factor of the scores.
        bias: Added to the scores, (N, 1, 1 or positions, keys).

    Returns:
        (N, heads, positions, value_dim).
    """
    given = dict(attn_mask=bias, scale=scale)
    if not device.on_gpu(query):
        return F.scaled_dot_product_attention(query, key, value, **given)
    if bias is not None or not takes_flash(query):
        with sdpa_kernel(_kernels()):
            return F.scaled_dot_product_attention(query, key, value, **given)
    parts, q, k, v = _in_parts(query, key, value)
    with sdpa_kernel(_kernels()):
        out = F.scaled_dot_product_attention(q, k, v, **given)
    out = out.unflatten(1, (-1, parts)).movedim(2, 3).flatten(3)
    return out[..., : value.shape[-1]]


def _kernels():
    """Those that are on, all if only cuDNN's is; compilers cannot ask."""
    if is_traced():
        return list(KERNELS)
    chosen = [kernel for kernel, is_on in KERNELS.items() if is_on()]
    return chosen or list(KERNELS)


def takes_flash(query: Tensor) -> bool:
    """Whether flash attention takes such queries, and keys like them."""
    narrow = query.dtype in (torch.float16, torch.bfloat16)
    place = query.device.type
    if not narrow or query.shape[-1] > WIDEST or place in OTHERS:
        return False
    if is_traced() or place != 'cuda':  # nothing to ask
        return True
    return device.capability(query.device) >= (8, 0)


def _in_parts(query, key, value):
    """Heads of one width: parts of the value, each with the whole key.

    Zeros fill up query and key, which change no score, and the last part.

    Returns:
        Of how many parts a head is, and (N, heads * parts, positions, width)
        of query, key and value.
    """
    dim, channels = query.shape[-1], value.shape[-1]
    parts = -(-channels // max(dim, PART))
    width = max(dim, -(-channels // parts))
    width += -width % 8  # rows of 16 bytes
    query, key = (
        _padded(x, width - dim)
        .unsqueeze(2)
        .expand(-1, -1, parts, -1, -1)
        .flatten(1, 2)
        for x in (query, key)
    )
    value = _padded(value, parts * width - channels)
    value = value.unflatten(-1, (parts, width)).movedim(-2, 2).flatten(1, 2)
    return parts, query, key, value


def _padded(x, missing):
    """With so many zeros more; not a copy where there are none."""
    return F.pad(x, (0, missing)) if missing else x
