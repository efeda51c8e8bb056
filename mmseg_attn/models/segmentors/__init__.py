# Copyright (c) mmseg_attn contributors.
from .mirror_tta import MirrorTTAModel

__all__ = ['MirrorTTAModel']
