# Copyright (c) mmseg_attn contributors.
"""What all that runs exported files has in common."""

import os
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..inference.samples import Runner
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
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise UserError(
                f'got a picture of shape {image.shape} and dtype '
                f'{image.dtype}, expected (H, W, 3) uint8 in BGR order.'
            )
        return image

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
            UserError: The file is bound to another size.
        """
        self.check_size(*pictures.shape[-3:-1])
        return self.session(np.ascontiguousarray(pictures[..., ::-1]))
