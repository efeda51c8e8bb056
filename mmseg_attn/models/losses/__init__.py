# Copyright (c) mmseg_attn contributors.
"""Losses."""

from .category_consistent_loss import CategoryConsistentLoss
from .class_presence_loss import ClassPresenceLoss
from .disparity_loss import DisparityLoss

__all__ = ['CategoryConsistentLoss', 'ClassPresenceLoss', 'DisparityLoss']
