# Copyright (c) mmseg_attn contributors.
"""Samples whose files are named where they are broken."""

import struct
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager, suppress

import cv2
from PIL import Image, UnidentifiedImageError

from ..datasets.masks import check_mask
from ..errors import UserError
from ..hosts import HostError

# What a broken or far too large file leads Pillow to.
UNREADABLE = (
    *(OSError, EOFError, SyntaxError, struct.error),
    Image.DecompressionBombError,
)


class NamedItems:
    """Fetches the samples of a batch, and names the files of a broken one.

    Args:
        dataset: The dataset. A DataLoader uses this object where the dataset
            has it as its method ``__getitems__``.
    """

    def __init__(self, dataset: Sized) -> None:
        self.dataset = dataset

    def __call__(self, indices: Sequence[int]) -> list:
        """Samples of these numbers."""
        return [load_sample(self.dataset, index) for index in indices]


def load_sample(dataset: Sized, index: int) -> object:
    """Load a sample, and name its files where they cannot be read.

    Args:
        dataset: The dataset.
        index: The sample's number.

    Returns:
        The sample.

    Raises:
        UserError: A file is missing or cannot be decoded.
    """
    with named_files(dataset, index):
        return dataset[index]


@contextmanager
def named_files(dataset: Sized, index: int) -> Iterator[None]:
    """Name the files of a sample that cannot be read.

    Args:
        dataset: The dataset.
        index: The sample's number.

    Yields:
        Nothing, while it is loaded.

    Raises:
        UserError: A file is missing or cannot be decoded.
    """
    try:
        yield
    except (*UNREADABLE, AssertionError, cv2.error) as error:
        reason = error
        if isinstance(error, AssertionError):
            if not HostError.NO_PICTURE.found_in(error):
                raise
        elif isinstance(error, cv2.error):
            if not HostError.EMPTY_PICTURE.found_in(error):
                raise
            reason = 'a file is empty'
        elif isinstance(error, UnidentifiedImageError):
            with suppress(OSError, AttributeError, KeyError, TypeError):
                # It may be a mask of a kind that Pillow does not know.
                check_mask(dataset.get_data_info(index)['seg_map_path'])
            reason = 'a file is no picture that Pillow knows'
        try:
            info = dataset.get_data_info(index)
            keys = ('img_path', 'seg_map_path')
            # Of a detector's samples there is no seg_map_path, only None.
            paths = [info[key] for key in keys if info[key]]
        except (AttributeError, KeyError, TypeError):
            paths = [f'number {index}']
        raise UserError(
            f'the sample {" with ".join(map(str, paths))} cannot be read: '
            f'{reason}. Repair or remove it.'
        ) from error
