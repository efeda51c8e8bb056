# Copyright (c) mmseg_attn contributors.
"""Segmentors."""

from .clip_encoder_decoder import ClipEncoderDecoder
from .tta import MirrorTTAModel, SegTTAModel

__all__ = ['ClipEncoderDecoder', 'MirrorTTAModel', 'SegTTAModel']
