# Copyright (c) mmseg_attn contributors.
"""Efficient attention for MMSegmentation and MMDetection.

Importing the package imports nothing else: ``mmseg_attn.ops`` needs torch
alone, and OpenMMLab finds the models by the scope in their type
(``type='mmseg_attn.CCHead'``).
"""

__version__ = '0.1.0'
