# Copyright (c) mmseg_attn contributors.
"""Necks."""

from .attention_neck import AttentionNeck
from .level_attention import LevelAttention

__all__ = ['AttentionNeck', 'LevelAttention']
