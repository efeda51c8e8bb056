# Copyright (c) mmseg_attn contributors.
"""Attention layers on (B, C, *spatial) feature maps."""

from .criss_cross import CrissCrossAttention

__all__ = ['CrissCrossAttention']
