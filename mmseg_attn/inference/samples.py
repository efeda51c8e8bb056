# Copyright (c) mmseg_attn contributors.
"""What goes into a model and comes out of it, whatever runs it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np


@dataclass(eq=False)  # arrays do not compare
class Sample:
    """A picture and what the model takes of it.

    Attributes:
        picture: As read, (H, W, 3) uint8 in BGR order.
        data: The prepared picture, with ``inputs`` among it.
    """

    picture: np.ndarray
    data: dict


class ScoredMap(NamedTuple):
    """What a segmentor finds in a picture.

    Attributes:
        mask: (H, W) class indices; uint8, or uint16 beyond 256 classes.
        scores: (classes, H, W) float32, the probability of each class: of all
            classes 1.
    """

    mask: np.ndarray
    scores: np.ndarray


class Runner(ABC):
    """What runs a model on pictures."""

    @abstractmethod
    def prepare(self, image: object) -> Sample:
        """Read a picture, or a pair, and make of it what the model takes.

        Args:
            image: Path, or an array (H, W, 3) uint8 in BGR order.
        """

    @abstractmethod
    def __call__(self, samples: Sequence[Sample]) -> Sequence:
        """Predict pictures of one size.

        Args:
            samples: As prepared.
        """

    def prepared(self, frames: Iterable[np.ndarray]) -> Iterable[Sample]:
        """Prepare the frames of a video, in order.

        Args:
            frames: (H, W, 3) uint8 in BGR order.
        """
        return map(self.prepare, frames)

    def stream(
        self, frames: Iterable[np.ndarray], batch_size: int = 1
    ) -> Iterator[tuple[np.ndarray, object]]:
        """Predict the frames of a video as they come.

        Args:
            frames: (H, W, 3) uint8 in BGR order.
            batch_size: Frames at a time.

        Yields:
            A frame and its prediction, in order.
        """
        samples = iter(self.prepared(frames))
        while batch := list(islice(samples, batch_size)):
            for sample, found in zip(batch, self(batch), strict=True):
                yield sample.picture, found
