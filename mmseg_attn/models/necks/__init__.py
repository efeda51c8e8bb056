# Copyright (c) mmseg_attn contributors.
from .level_attention import LevelAttention

__all__ = ['LevelAttention']
