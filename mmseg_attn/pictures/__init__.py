# Copyright (c) mmseg_attn contributors.
"""Reading pictures, and saying what a file is that cannot be one.

Needs no host and no torch: numpy and Pillow, and OpenCV where it is there.
"""

from .decode import (
    check_depth,
    check_head,
    decode_picture,
    open_head,
    picture_size,
    read_picture,
    size_text,
    to_8_bits,
    why_not,
)
from .heads import MOST_PIXELS, read_head

__all__ = [
    'MOST_PIXELS',
    'check_depth',
    'check_head',
    'decode_picture',
    'open_head',
    'picture_size',
    'read_head',
    'read_picture',
    'size_text',
    'to_8_bits',
    'why_not',
]
