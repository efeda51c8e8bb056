# Copyright (c) mmseg_attn contributors.
"""Backbones."""

from importlib.util import find_spec

from .attention_backbone import AttentionBackbone
from .dilated_efficientnet import DilatedEfficientNet

__all__ = ['AttentionBackbone', 'DilatedEfficientNet']

if find_spec('mmseg'):
    from .aligned_hrnet import AlignedHRNet  # noqa: F401
    from .deep_stem_resnet import DeepStemResNet  # noqa: F401

    __all__ += ['AlignedHRNet', 'DeepStemResNet']
