# Copyright (c) mmseg_attn contributors.
"""Pictures of results that the hosts do not draw."""

from .disparity import DisparityVisualizer, draw_disparity

__all__ = ['DisparityVisualizer', 'draw_disparity']
