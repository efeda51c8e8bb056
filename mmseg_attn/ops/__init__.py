# Copyright (c) mmseg_attn contributors.
"""Attention operators as functions on tensors. Needs torch alone."""

from ._backends import backends
from .criss_cross import criss_cross_attention

__all__ = ['backends', 'criss_cross_attention']
