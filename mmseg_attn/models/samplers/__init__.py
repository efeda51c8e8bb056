# Copyright (c) mmseg_attn contributors.
"""Pixel samplers."""

from .class_weight_pixel_sampler import ClassWeightPixelSampler
from .ohem_pixel_sampler import OHEMPixelSampler

__all__ = ['ClassWeightPixelSampler', 'OHEMPixelSampler']
