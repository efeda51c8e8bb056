# Copyright (c) mmseg_attn contributors.
"""PSMNet and its parts."""

from .aggregation import BasicAggregation, StackedHourglass
from .cost_volume import ConcatCostVolume
from .disparity_regression import DisparityRegression
from .features import PSMNetFeatures
from .psmnet import PSMNet

__all__ = [
    'BasicAggregation',
    'ConcatCostVolume',
    'DisparityRegression',
    'PSMNet',
    'PSMNetFeatures',
    'StackedHourglass',
]
