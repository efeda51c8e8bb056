# Copyright (c) mmseg_attn contributors.
"""The hosts' loading of pictures, which says what a file is."""

import os
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio

from ..errors import UserError
from ..pictures import (
    check_depth,
    check_head,
    decode_picture,
    open_head,
    why_not,
)
from ..registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadPicture(LoadImageFromFile):
    """Load a picture as mmcv does, but never as something else than it is.

    Those that are not of 8 bits, or not of three channels, are scaled to 8
    bits as ``depth`` says, or refused. What is loaded ``'unchanged'`` stays
    so.

    Args:
        depth: Bits that the values of 16-bit pictures use, see
            :func:`decode_picture`.
        kwargs: Arguments of mmcv's ``LoadImageFromFile``.
    """

    def __init__(self, depth: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_depth(depth)
        if self.imdecode_backend == 'tifffile' and not find_spec('tifffile'):
            raise UserError(
                "imdecode_backend='tifffile' needs a package that is not "
                'installed: pip install tifffile'
            )
        self.depth = depth

    def transform(self, results: dict) -> dict | None:
        """Load a picture.

        Args:
            results: A sample with ``img_path``.

        Returns:
            The sample with ``img``, ``img_shape`` and ``ori_shape``.

        Raises:
            UserError: It cannot be used.
        """
        path = results['img_path']
        cv2_reads = self.imdecode_backend in (None, 'cv2')
        if self.color_type == 'unchanged' or self.file_client_args:
            return self._as_mmcv(results)
        if not cv2_reads:
            if self.imdecode_backend == 'pillow' and os.path.isfile(path):
                self._check_for_pillow(path)
            return self._as_mmcv(results)
        try:
            data = fileio.get(path, backend_args=self.backend_args)
            image = decode_picture(data, path, self.color_type, self.depth)
        except (OSError, UserError):
            if self.ignore_empty:
                return None
            raise
        if self.to_float32:
            image = image.astype(np.float32)
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _as_mmcv(self, results: dict) -> dict | None:
        try:
            return super().transform(results)
        except (AssertionError, ValueError, cv2.error) as error:
            path = results['img_path']
            if not os.path.isfile(path):
                raise
            with open(path, 'rb') as file:
                raise UserError(why_not(file.read(), path)) from error

    def _check_for_pillow(self, path: str) -> None:
        head = open_head(path, path)
        if head:
            check_head(head, path)
            if head.bits > 8:
                raise UserError(
                    f'{path} has {head.bits} bits per value, which imdecode_'
                    "backend='pillow' would cut to 8: load it with 'cv2'."
                )

    def __repr__(self) -> str:
        return f'{super().__repr__()[:-1]}, depth={self.depth})'
