# Copyright (c) mmseg_attn contributors.
"""Metrics that the hosts lack, registered under ``mmseg_attn``."""

from importlib.util import find_spec

if find_spec('mmseg'):
    from .class_iou import ClassIoUMetric  # noqa: F401
    from .disparity import DisparityMetric  # noqa: F401
    from .group_iou import GroupIoUMetric  # noqa: F401
    from .land_cover import LandCoverMetric  # noqa: F401
