# Copyright (c) mmseg_attn contributors.
"""Segment pictures of any size: windows that stream from disk to disk.

No host and no torch: a network is a function from windows to logits.
"""

from .overview import overview
from .pictures import Picture, open_picture
from .row_file import RowFile
from .segmenting import Network, ignored_label, segment_rows
from .windows import BLENDS, Windows

__all__ = [
    'BLENDS',
    'Network',
    'Picture',
    'RowFile',
    'Windows',
    'ignored_label',
    'open_picture',
    'overview',
    'segment_rows',
]
