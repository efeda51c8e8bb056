# Copyright (c) mmseg_attn contributors.
"""Pixel samplers."""

from .ohem_pixel_sampler import OHEMPixelSampler

__all__ = ['OHEMPixelSampler']
