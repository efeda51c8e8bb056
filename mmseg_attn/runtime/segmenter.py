# Copyright (c) mmseg_attn contributors.
"""Run an exported segmentor on pictures."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..inference.samples import Runner, Sample, ScoredMap
from ..pictures import check_depth, read_picture
from ..streaming import Windows
from .resizing import picture_size, resize, resize_bytes
from .sessions import Session


class ExportedSegmenter(Runner):
    """Segment pictures as the exported file says.

    Attributes:
        session: The network, with its card.
        soft: Whether results are with the scores of all classes.
        depth: Bits that 16-bit pictures use.

    Args:
        session: As from :func:`~mmseg_attn.runtime.open_session`.

    Raises:
        UserError: The file gives class maps, which cannot be put together
            from windows or resized.
    """

    def __init__(self, session: Session) -> None:
        self.session, self.card = session, session.card
        self.soft = False
        self.depth: int | None = None
        card = self.card
        if card.output == 'mask' and (card.window or card.scale):
            raise UserError(
                'the file gives class maps, but its pictures are resized or '
                'predicted in windows: export it with --output logits.'
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

    def set_depth(self, depth: int) -> None:
        """Say how many bits of 16-bit pictures are used.

        Args:
            depth: Number of bits, as of
                :func:`~mmseg_attn.pictures.read_picture`.
        """
        check_depth(depth)
        self.depth = depth

    def prepare(self, image: str | Path | np.ndarray) -> Sample:
        """Read a picture and resize it for the network.

        Args:
            image: Path, or the picture as (H, W, 3) uint8 in BGR order.

        Returns:
            What :meth:`__call__` takes.

        Raises:
            UserError: It is no whole picture.
        """
        if isinstance(image, (str, os.PathLike)):
            image = read_picture(str(image), self.depth)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise UserError(
                f'got a picture of shape {image.shape} and dtype '
                f'{image.dtype}, expected (H, W, 3) uint8 in BGR order.'
            )
        inputs, card = image, self.card
        if card.scale:
            size = picture_size(image.shape[:2], card.scale, card.keep_ratio)
            inputs = resize_bytes(image, size)
        return Sample(image, {'inputs': inputs})

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
        pictures = np.stack([sample.data['inputs'] for sample in samples])
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
        """Run the network as it is.

        Args:
            pictures: (N, H, W, 3) uint8 BGR.

        Returns:
            What the card says, of the size of the pictures unless they are
            class maps.

        Raises:
            UserError: The file is bound to another size.
        """
        self.check_size(*pictures.shape[1:3])
        found = self.session(np.ascontiguousarray(pictures[..., ::-1]))
        if self.card.output == 'mask' or self.card.resized:
            return found
        size = pictures.shape[1:3]
        return resize(found, size, self.card.align_corners)

    def check_size(self, height: int, width: int) -> None:
        """Refuse what a network of one size cannot take.

        Args:
            height: Height of a picture or window, in pixels.
            width: Likewise.

        Raises:
            UserError: It has another size.
        """
        got, need = (height, width), self.card.fixed_size
        if need and got != need:
            what = 'larger pictures' if self.card.window else 'that size'
            raise UserError(
                f'the network gets {got[0]} x {got[1]} pixels (height, '
                f'width) and takes {need[0]} x {need[1]} alone: give it '
                f'{what}, or export without --fixed-size.'
            )

    def _in_windows(self, picture: np.ndarray) -> np.ndarray:
        """Average the output of windows that overlap."""
        size = picture.shape[:2]
        rows, columns = self.windows().cut(*size)
        total = None
        for top in rows.starts:
            for left in columns.starts:
                part = np.s_[top : rows.end(top), left : columns.end(left)]
                (found,) = self.network(picture[part][None])
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
        if self.card.output == 'probabilities':
            scores = found
            mask = found.argmax(0)
            if len(found) == 2 and self.card.threshold != 0.5:
                mask = found[1] > self.card.threshold
        elif len(found) == 1:  # one logit for two classes
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
