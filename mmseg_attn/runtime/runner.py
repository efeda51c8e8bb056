# Copyright (c) mmseg_attn contributors.
"""What all that runs exported files has in common."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..inference.samples import Runner, Sample
from ..pictures import check_depth, read_picture
from .resizing import picture_size, resize_bytes
from .sessions import Session


class ExportedRunner(Runner):
    """Runs an exported file on pictures.

    Attributes:
        task: What the network is for, as its card says.
        session: The network.
        card: What the file says of itself.
        depth: Bits that 16-bit pictures use.

    Args:
        session: As from :func:`~mmseg_attn.runtime.open_session`.

    Raises:
        UserError: The file is for something else.
    """

    task: str

    def __init__(self, session: Session) -> None:
        self.session, self.card = session, session.card
        self.depth: int | None = None
        if self.card.task != self.task:
            raise UserError(
                f'the file is for the task {self.card.task!r}, '
                f'{type(self).__name__} for {self.task!r}: open it with '
                'open_runner.'
            )

    def set_depth(self, depth: int) -> None:
        """Say how many bits of 16-bit pictures are used.

        Args:
            depth: Number of bits, as of
                :func:`~mmseg_attn.pictures.read_picture`.
        """
        check_depth(depth)
        self.depth = depth

    def read(self, image: str | Path | np.ndarray) -> np.ndarray:
        """Read a picture.

        Args:
            image: Path, or the picture as (H, W, 3) uint8 in BGR order.

        Returns:
            The picture, likewise.

        Raises:
            UserError: It is no whole picture.
        """
        if isinstance(image, (str, os.PathLike)):
            return read_picture(str(image), self.depth)
        got = repr(image)
        if isinstance(image, np.ndarray):
            right = image.ndim == 3 and image.shape[2] == 3 and image.size
            if right and image.dtype == np.uint8:
                return image
            got = f'an array of shape {image.shape} and dtype {image.dtype}'
        raise UserError(
            f'the picture is {got}, expected a path, or (H, W, 3) uint8 in '
            'BGR order.'
        )

    def gather(self, samples: Sequence[Sample]) -> np.ndarray:
        """Put what the network takes of some pictures together.

        Args:
            samples: As from ``prepare``.

        Returns:
            (N, ...) uint8.

        Raises:
            UserError: There is none, their sizes differ, or they are not as
                from ``prepare``.
        """
        wrong = [samples]
        if isinstance(samples, Sequence):
            wrong = [item for item in samples if not isinstance(item, Sample)]
        if wrong:
            raise UserError(
                f'got a {type(wrong[0]).__name__}, expected a list of what '
                'prepare gives.'
            )
        inputs = [sample.data['inputs'] for sample in samples]
        sizes = {item.shape for item in inputs}
        if len(sizes) != 1:
            raise UserError(
                f'got {len(inputs)} pictures of {len(sizes)} sizes, expected '
                'one or more of one size.'
            )
        return np.stack(inputs)

    def fit(self, picture: np.ndarray) -> np.ndarray:
        """Resize a picture for the network.

        Args:
            picture: (H, W, 3) uint8.

        Returns:
            Of the size that the network gets.
        """
        card = self.card
        if not card.scale:
            return picture
        size = picture_size(picture.shape[:2], card.scale, card.keep_ratio)
        return resize_bytes(picture, size)

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

    def run(self, pictures: np.ndarray) -> np.ndarray:
        """Run the network as it is.

        Args:
            pictures: (N, H, W, 3) uint8 BGR, or of clips and pairs (N,
                frames, H, W, 3).

        Returns:
            What the card says.

        Raises:
            UserError: They are of another shape or type, or the file is bound
                to another size.
        """
        self.session.check(pictures, 'blue')
        self.check_size(*pictures.shape[-3:-1])
        return self.session(np.ascontiguousarray(pictures[..., ::-1]))
