# Copyright (c) mmseg_attn contributors.
"""A check of label maps as they are loaded."""

import os

import numpy as np
from mmcv.transforms import BaseTransform

from ..errors import UserError
from ..registry import TRANSFORMS
from .masks import PaletteCheck, check_mask


@TRANSFORMS.register_module()
class CheckAnnotations(BaseTransform):
    """Check a label map that was just loaded, and name the file at fault.

    Without it an out-of-range label ends in a CUDA assertion, or is silently
    not counted in validation. Each file is checked the first time it is read.

    Args:
        num_classes: Number of classes: labels are 0 to ``num_classes - 1``.
        ignore_index: Label of pixels that count for nothing.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.checked: set[str] = set()
        self.check_palette = PaletteCheck(ignore_index)

    def transform(self, results: dict) -> dict:
        """Check the label map of one sample.

        Args:
            results: A sample with ``gt_seg_map`` and, where known,
                ``seg_map_path``, ``img_path`` and ``ori_shape``.

        Returns:
            The sample, unchanged.

        Raises:
            UserError: The map is not of the picture's size, is not a map of
                8-bit indices, or holds a label that is no class.
        """
        path = str(results.get('seg_map_path', 'label map'))
        # None is loaded where a model only predicts: a config that a runner
        # wrote serves there too.
        if path in self.checked or 'gt_seg_map' not in results:
            return results
        label = results['gt_seg_map']
        palette = self._check_file(path)
        if label.ndim != 2:
            raise UserError(
                f'{path} is a colour picture {label.shape}: expected one '
                "channel that holds the index of each pixel's class."
            )
        # The picture may have been resized already, so its original size.
        size = results.get('ori_shape')
        if size is not None and tuple(size[:2]) != label.shape:
            raise UserError(
                f'{path} is {_size(label.shape)} pixels, but its picture '
                f'{results.get("img_path", "")} is {_size(size)}: they must '
                'be of one size.'
            )
        wrong = (label >= self.num_classes) & (label != self.ignore_index)
        if wrong.any():
            self._refuse(path, label[wrong], results)
        if palette:
            shift = int(bool(results.get('reduce_zero_label')))
            if not results.get('label_map'):
                values = np.unique(label) + shift
                self.check_palette(path, values, palette)
        self.checked.add(path)
        return results

    def _check_file(self, path: str) -> list[tuple[int, int, int]]:
        # LoadAnnotations changes what it cannot hold without a word.
        try:
            return check_mask(path) if os.path.isfile(path) else []
        except OSError:  # another decoder read it
            return []

    def _refuse(self, path: str, labels: np.ndarray, results: dict) -> None:
        values, counts = np.unique(labels, return_counts=True)
        shift = 1 if results.get('reduce_zero_label') else 0
        found = ', '.join(
            f'{int(value) + shift} ({count} pixels)'
            for value, count in zip(values[:5], counts[:5], strict=True)
        )
        expected = f'{shift} to {self.num_classes - 1 + shift}'
        if shift:
            expected += ', or 0, which reduce_zero_label ignores'
        raise UserError(
            f'{path} holds label {found}{", ..." if len(values) > 5 else ""}: '
            f'expected {expected}, or {self.ignore_index} to ignore a pixel. '
            'Correct the mask, num_classes, or reduce_zero_label.'
        )

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(num_classes={self.num_classes}, '
            f'ignore_index={self.ignore_index})'
        )


def _size(shape: tuple[int, ...]) -> str:
    return f'{shape[1]} x {shape[0]}'
