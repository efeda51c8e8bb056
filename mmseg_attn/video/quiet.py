# Copyright (c) mmseg_attn contributors.
"""Keep OpenCV from saying what an error or another try says."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..pictures.opencv import cv2


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Hide OpenCV's own messages.

    Yields:
        Nothing; afterwards it speaks as before.
    """
    level = cv2.getLogLevel()
    cv2.setLogLevel(0)
    try:
        yield
    finally:
        cv2.setLogLevel(level)
