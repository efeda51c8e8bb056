# Copyright (c) mmseg_attn contributors.
"""Read and write videos one frame at a time."""

from .reading import VIDEOS, count_frames, read_frame, read_video
from .streams import Stream, is_stream
from .writing import write_video

__all__ = [
    'VIDEOS',
    'Stream',
    'count_frames',
    'is_stream',
    'read_frame',
    'read_video',
    'write_video',
]
