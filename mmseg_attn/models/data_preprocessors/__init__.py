# Copyright (c) mmseg_attn contributors.
"""Data preprocessors."""

from .clip_data_preprocessor import ClipDataPreProcessor

__all__ = ['ClipDataPreProcessor']
