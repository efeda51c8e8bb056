# Copyright (c) mmseg_attn contributors.
"""Put the logits of windows together, a row of windows at a time."""

import numpy as np

from .windows import Cuts

# Rows that are decided at a time, which bounds what this takes beside.
ROWS = 32


class Blend:
    """Sums of the logits of the rows that windows can still reach.

    Args:
        rows: The picture's rows, cut into windows.
        columns: Its columns, likewise.
        threshold: Least probability of the foreground, of a network with one
            logit.

    Attributes:
        sums: (classes, height of a window, width of the picture) float32,
            None before the first window: all that grows with the picture's
            width and the number of classes, and nothing with its height.
    """

    def __init__(self, rows: Cuts, columns: Cuts, threshold: float) -> None:
        self.rows, self.columns, self.threshold = rows, columns, threshold
        self.sums: np.ndarray | None = None
        weights = np.outer(rows.weights, columns.weights)
        self._weights = None if (weights == 1).all() else weights

    def add(self, left: int, logits: np.ndarray) -> None:
        """Add a window of the present row of windows.

        Args:
            left: Its first column.
            logits: (classes, height, width) float32.
        """
        classes, height, width = logits.shape
        if self.sums is None:
            shape = classes, self.rows.size, self.columns.length
            self.sums = np.zeros(shape, np.float32)
        if self._weights is not None:
            logits = logits * self._weights[:height, :width]
        self.sums[:, :height, left : left + width] += logits

    def finish(self, top: int, bottom: int, dtype: type) -> np.ndarray:
        """Decide rows that no later window reaches, and forget them.

        Args:
            top: First row of the present row of windows.
            bottom: First row of the next one, or the picture's height.
            dtype: Type of the class indices.

        Returns:
            (bottom - top, width) class indices; 0 where no window was added.
        """
        count = bottom - top
        labels = np.zeros((count, self.columns.length), dtype)
        if self.sums is None:
            return labels
        for start in range(0, count, ROWS):
            part = slice(start, min(start + ROWS, count))
            logits = self.sums[:, part]
            heights = self.rows.total[top + part.start : top + part.stop]
            logits /= np.outer(heights, self.columns.total)
            labels[part] = _decide(logits, self.threshold)
        for plane in self.sums:  # one by one: the copy is of one alone
            plane[: len(plane) - count] = plane[count:]
            plane[len(plane) - count :] = 0
        return labels


def _decide(logits: np.ndarray, threshold: float) -> np.ndarray:
    """The best class (rows, width) of (classes, rows, width) logits."""
    if len(logits) == 1:
        return 1 / (1 + np.exp(-logits[0])) > threshold
    # NumPy's argmax would copy all with the classes last.
    best = logits[0].copy()
    labels = np.zeros(best.shape, np.uint16)
    for label, scores in enumerate(logits[1:], start=1):
        better = scores > best
        np.copyto(labels, label, where=better)
        np.copyto(best, scores, where=better)
    return labels
