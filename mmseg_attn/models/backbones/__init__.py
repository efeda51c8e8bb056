# Copyright (c) mmseg_attn contributors.
from .deep_stem_resnet import DeepStemResNet
from .dilated_efficientnet import DilatedEfficientNet

__all__ = ['DeepStemResNet', 'DilatedEfficientNet']
