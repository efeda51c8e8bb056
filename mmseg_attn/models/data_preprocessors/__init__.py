# Copyright (c) mmseg_attn contributors.
from .clip_data_preprocessor import ClipDataPreProcessor

__all__ = ['ClipDataPreProcessor']
