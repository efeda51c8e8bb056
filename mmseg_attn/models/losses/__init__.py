# Copyright (c) mmseg_attn contributors.
from .category_consistent_loss import CategoryConsistentLoss

__all__ = ['CategoryConsistentLoss']
