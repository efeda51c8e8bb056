# Copyright (c) mmseg_attn contributors.
"""Run an exported segmentor for clips."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ..inference.samples import Sample
from ..video.clips import Clip, read_clip
from .card import CLIPS
from .segmenter import ExportedSegmenter
from .sessions import Session


class ExportedClipSegmenter(ExportedSegmenter):
    """Segment frames with the help of those around them.

    Arguments as of :class:`ExportedSegmenter`.

    Attributes:
        clip: Which frames these are.
    """

    task = CLIPS

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        card = self.card
        self.clip = Clip(card.frames, card.label_frame, card.frame_step)

    def prepare(self, image: str | Path | np.ndarray) -> Sample:
        """Read a picture and the frames around it.

        Args:
            image: Path, beside which the other frames are found by the number
                that ends their names; or a frame that is its whole clip, (H,
                W, 3) uint8 in BGR order.

        Returns:
            What :meth:`__call__` takes.

        Raises:
            UserError: A file is no whole picture, or of another size.
        """
        if isinstance(image, np.ndarray):
            clip = [self.read(image)] * self.clip.frames
        else:
            paths = self.clip.paths(str(image))
            clip = read_clip(paths, self.clip.label_frame, self.depth)
        picture = clip[self.clip.label_frame]
        return Sample(picture, {'inputs': np.stack(list(map(self.fit, clip)))})

    def prepared(self, frames: Iterable[np.ndarray]) -> Iterator[Sample]:
        """Prepare the frames of a video, each with those around it.

        Args:
            frames: (H, W, 3) uint8 in BGR order.

        Yields:
            What :meth:`__call__` takes.

        Raises:
            UserError: The frames change in size.
        """
        for frame, clip in self.clip.stream(frames, self.fit):
            yield Sample(frame, {'inputs': np.stack(clip)})
