# Copyright (c) mmseg_attn contributors.
"""Write models into files that run without OpenMMLab."""

from .exporting import Exported, export

__all__ = ['Exported', 'export']
