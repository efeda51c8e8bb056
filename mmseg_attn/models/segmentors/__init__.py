# Copyright (c) mmseg_attn contributors.
from .clip_encoder_decoder import ClipEncoderDecoder
from .mirror_tta import MirrorTTAModel

__all__ = ['ClipEncoderDecoder', 'MirrorTTAModel']
