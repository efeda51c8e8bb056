# Copyright (c) mmseg_attn contributors.
"""Attention operators as functions on tensors. Needs torch alone."""

from .axial import axial_attention
from .channelized_axial import channelized_axial_attention
from .criss_cross import criss_cross_attention
from .declare import backends
from .efficient import efficient_attention
from .interlaced import interlaced_sparse_attention
from .linear import channel_linear_attention, linear_attention
from .non_local import non_local_attention

__all__ = [
    'axial_attention',
    'backends',
    'channel_linear_attention',
    'channelized_axial_attention',
    'criss_cross_attention',
    'efficient_attention',
    'interlaced_sparse_attention',
    'linear_attention',
    'non_local_attention',
]
