# Copyright (c) mmseg_attn contributors.
from .cc_head import CCHead

__all__ = ['CCHead']
