# Copyright (c) mmseg_attn contributors.
"""Run an exported segmentor on pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..inference.samples import Sample, ScoredMap
from ..streaming import Windows
from .card import SEGMENTOR
from .resizing import resize
from .runner import ExportedRunner
from .sessions import Session


class ExportedSegmenter(ExportedRunner):
    """Segment pictures as the exported file says.

    Attributes:
        soft: Whether results are with the scores of all classes.

    Args:
        session: As from :func:`~mmseg_attn.runtime.open_session`.

    Raises:
        UserError: The file gives class maps, which cannot be put together
            from windows or resized.
    """

    task = SEGMENTOR

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.soft = False
        card = self.card
        other_size = card.window or card.scale or not card.resized
        if card.output == 'mask' and other_size:
            raise UserError(
                'the file gives class maps, but not of the size of pictures, '
                'which are resized or predicted in windows: export it with '
                '--output logits.'
            )

    def keep_scores(self) -> None:
        """Give results with scores from now on.

        Raises:
            UserError: The file gives class maps alone.
        """
        if self.card.output == 'mask':
            raise UserError(
                'the file gives class maps without scores: export it with '
                '--output logits or probabilities.'
            )
        self.soft = True

    def prepare(self, image: str | Path | np.ndarray) -> Sample:
        """Read a picture and resize it for the network.

        Args:
            image: Path, or the picture as (H, W, 3) uint8 in BGR order.

        Returns:
            What :meth:`__call__` takes.

        Raises:
            UserError: It is no whole picture.
        """
        picture = self.read(image)
        return Sample(picture, {'inputs': self.fit(picture)})

    def __call__(
        self, samples: Sequence[Sample]
    ) -> list[np.ndarray] | list[ScoredMap]:
        """Predict the class of every pixel.

        Args:
            samples: Pictures whose network inputs have equal sizes.

        Returns:
            One (H, W) map of class indices for each picture, at the picture's
            size; uint8, or uint16 beyond 256 classes. If ``soft``, it is with
            scores.
        """
        pictures = self.gather(samples)
        if self.card.window:
            found = np.stack(list(map(self._in_windows, pictures)))
        else:
            found = self.network(pictures)
        sizes = [sample.picture.shape[:2] for sample in samples]
        return list(map(self._take, found, sizes))

    def windows(self, blend: str = 'average') -> Windows:
        """Say how pictures are cut into windows.

        Args:
            blend: How windows that overlap are put together.

        Returns:
            Of single pixels where the file is for whole pictures.
        """
        card, pixel = self.card, (1, 1)
        return Windows(
            card.window or pixel, card.stride or pixel, blend, card.divisor
        )

    def network(self, pictures: np.ndarray) -> np.ndarray:
        """Run the network, and resize what it gives.

        Args:
            pictures: (N, H, W, 3) uint8 BGR, or of clips (N, frames, H, W,
                3).

        Returns:
            Class maps where the file gives these; else logits, of the size
            of the pictures.

        Raises:
            UserError: The file is bound to another size.
        """
        found = self.run(pictures)
        if self.card.output == 'mask':
            return found
        if self.card.output == 'probabilities':
            found = self._logits(found)
        if self.card.resized:
            return found
        size = pictures.shape[-3:-1]
        return resize(found, size, self.card.align_corners)

    def _logits(self, probabilities: np.ndarray) -> np.ndarray:
        """Logits that have these probabilities.

        From those of the network they differ by a number for each pixel that
        all classes share: averaged or resized, they give the same classes,
        which the probabilities do not.
        """
        tiny = np.finfo(np.float32).tiny
        found = np.log(np.maximum(probabilities, tiny))
        if found.shape[1] == 2 and self.card.threshold != 0.5:
            return found[:, 1:] - found[:, :1]  # of a network with one
        return found

    def _in_windows(self, picture: np.ndarray) -> np.ndarray:
        """Average the logits of windows that overlap."""
        size = picture.shape[-3:-1]
        rows, columns = self.windows().cut(*size)
        total = None
        for top in rows.starts:
            for left in columns.starts:
                part = np.s_[top : rows.end(top), left : columns.end(left)]
                window = picture[(..., *part, slice(None))]
                (found,) = self.network(window[None])
                if total is None:
                    total = np.zeros((len(found), *size), np.float32)
                total[:, part[0], part[1]] += found
        return total / np.outer(rows.total, columns.total)

    def _take(
        self, found: np.ndarray, size: tuple[int, int]
    ) -> np.ndarray | ScoredMap:
        wide = np.uint16 if len(self.card.classes) > 256 else np.uint8
        if self.card.output == 'mask':
            return found.astype(wide)
        found = resize(found, size, self.card.align_corners)
        if len(found) == 1:  # one logit for two classes
            second = 1 / (1 + np.exp(-found))
            mask = second[0] > self.card.threshold
            scores = np.concatenate([1 - second, second])
        else:
            mask, scores = found.argmax(0), None
        mask = mask.astype(wide)
        if not self.soft:
            return mask
        if scores is None:
            scores = np.exp(found - found.max(0))
            scores /= scores.sum(0)
        return ScoredMap(mask, scores)
