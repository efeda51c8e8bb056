# Copyright (c) mmseg_attn contributors.
"""An exported segmentor as a function from windows to logits."""

import numpy as np

from .card import SEGMENTOR
from .resizing import picture_size
from .segmenter import ExportedSegmenter


class ExportedWindows:
    """What lets the windows of a picture stream through an exported file.

    A :class:`~mmseg_attn.inference.streamed.WindowModel`.

    Args:
        segmenter: What runs the file.
        blend: How windows that overlap are put together.

    Attributes:
        reason: Why pictures cannot stream; None where they can.
        advice: What to do then with a picture that is too large.
        windows: How a picture is cut.
        threshold: Least probability of the foreground, where the network has
            one logit.
        depth: Bits that 16-bit pictures use.
    """

    advice = 'export it with --slide.'

    def __init__(
        self, segmenter: ExportedSegmenter, blend: str = 'average'
    ) -> None:
        self.segmenter, self.card = segmenter, segmenter.card
        self.reason = None
        if self.card.task != SEGMENTOR:
            self.reason = 'the model is no plain segmentor of pictures'
            self.advice = 'leave that out, or cut the picture into tiles.'
        elif not self.card.window:
            self.reason = 'the file was exported for whole pictures'
        elif segmenter.soft:
            self.reason = 'scores are saved (--save scores)'
            self.advice = 'leave that out.'
        self.windows = segmenter.windows(blend)
        self.threshold = self.card.threshold
        self.depth = segmenter.depth

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """Predict windows of one size.

        Args:
            windows: (N, height, width, 3) uint8, BGR.

        Returns:
            (N, classes, height, width) float32.
        """
        return self.segmenter.network(windows)

    def resized(self, height: int, width: int) -> str | None:
        """Say to which size the file's rule resizes a picture.

        Args:
            height: The picture's, in pixels.
            width: Likewise.

        Returns:
            None where it keeps its size.
        """
        if not self.card.scale:
            return None
        size = picture_size(
            (height, width), self.card.scale, self.card.keep_ratio
        )
        if size == (height, width):
            return None
        return f'{size[1]} x {size[0]} pixels'
