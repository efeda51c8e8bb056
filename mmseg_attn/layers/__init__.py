# Copyright (c) mmseg_attn contributors.
"""Attention layers on (B, C, *spatial) feature maps. Need torch alone."""

from .channelized_axial import ChannelizedAxialAttention
from .criss_cross import CrissCrossAttention
from .efficient import EfficientAttention
from .global_convolution import GlobalConvolution
from .interlaced import InterlacedSparseAttention
from .linear import ChannelLinearAttention, LinearAttention
from .squeeze import SqueezeAttention

__all__ = [
    'ChannelLinearAttention',
    'ChannelizedAxialAttention',
    'CrissCrossAttention',
    'EfficientAttention',
    'GlobalConvolution',
    'InterlacedSparseAttention',
    'LinearAttention',
    'SqueezeAttention',
]
