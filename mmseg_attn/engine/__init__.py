# Copyright (c) mmseg_attn contributors.
"""What keeps a training safe and repeatable, as parts of its config."""

from .bfloat16 import BFloat16OptimWrapper
from .channels_last import ChannelsLastHook
from .check_setup import CheckSetupHook
from .clip_visualization import ClipVisualizationHook
from .replay import ReplayHook, ReplaySampler
from .safe_checkpoint import SafeCheckpointHook
from .validation_sheet import InstanceSheetHook, ValidationSheetHook

__all__ = [
    'BFloat16OptimWrapper',
    'ChannelsLastHook',
    'CheckSetupHook',
    'ClipVisualizationHook',
    'InstanceSheetHook',
    'ReplayHook',
    'ReplaySampler',
    'SafeCheckpointHook',
    'ValidationSheetHook',
]
