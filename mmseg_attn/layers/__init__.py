# Copyright (c) mmseg_attn contributors.
"""Attention layers on (B, C, *spatial) feature maps."""

from .criss_cross import CrissCrossAttention
from .interlaced import InterlacedSparseAttention

__all__ = ['CrissCrossAttention', 'InterlacedSparseAttention']
