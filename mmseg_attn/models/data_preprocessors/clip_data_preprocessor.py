# Copyright (c) mmseg_attn contributors.
"""Batches of clips and of stereo pairs."""

from __future__ import annotations

from typing import Any

import torch
from mmseg.models import SegDataPreProcessor
from mmseg.utils import stack_batch

from ...errors import UserError
from ...registry import MODELS


@MODELS.register_module()
class ClipDataPreProcessor(SegDataPreProcessor):
    """Normalise and stack samples of several pictures of one size.

    For the T frames of a clip, and for the left and right picture of a pair
    (T = 2). Each picture is treated as mmseg's ``SegDataPreProcessor`` treats
    one.

    Args:
        args: Arguments of ``SegDataPreProcessor``.
        bgr_to_rgb: Whether the order of the colours is turned.
        rgb_to_bgr: The same.
        kwargs: Further arguments of ``SegDataPreProcessor``, without
            ``batch_augments``.
    """

    def __init__(
        self,
        *args: Any,
        bgr_to_rgb: bool = False,
        rgb_to_bgr: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            *args, bgr_to_rgb=bgr_to_rgb, rgb_to_bgr=rgb_to_bgr, **kwargs
        )
        # The two host families keep it under different names.
        self.swap = bgr_to_rgb or rgb_to_bgr

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepare a batch.

        Args:
            data: A batch with ``inputs``, a list of (C, T, H, W), and
                ``data_samples``.
            training: Whether the labels are padded with the pictures.

        Returns:
            ``inputs`` (B, C, T, H, W) and ``data_samples``.

        Raises:
            ValueError: A sample is no clip.
            UserError: The samples differ in their number of pictures, or
                when not training in their size.
        """
        data = self.cast_data(data)
        inputs, samples = data['inputs'], data.get('data_samples')
        for x in inputs:
            if x.ndim != 4:
                raise ValueError(
                    f'got a sample of shape {tuple(x.shape)}: expected '
                    '(C, T, H, W), as mmseg_attn.PackClipInputs and '
                    'mmseg_attn.PackStereoInputs pack it'
                )
        shapes = {tuple(x.shape[: 2 if training else None]) for x in inputs}
        if len(shapes) > 1:
            hint = ', all of one size. Set batch_size=1 of the test loader.'
            raise UserError(
                f'the samples of a batch have the shapes {sorted(shapes)}: '
                f'expected as many pictures in each{"" if training else hint}'
            )
        if self.swap and inputs[0].size(0) == 3:
            inputs = [x[[2, 1, 0]] for x in inputs]
        inputs = [x.float() for x in inputs]
        if self._enable_normalize:
            mean, std = self.mean[..., None], self.std[..., None]
            inputs = [(x - mean) / std for x in inputs]
        frames = inputs[0].shape[:2]
        flat = [x.flatten(0, 1) for x in inputs]
        padding = dict(pad_val=self.pad_val, seg_pad_val=self.seg_pad_val)
        if training:
            stacked, samples = stack_batch(
                flat,
                samples,
                size=self.size,
                size_divisor=self.size_divisor,
                **padding,
            )
        elif self.test_cfg:
            stacked, padded = stack_batch(
                flat,
                size=self.test_cfg.get('size'),
                size_divisor=self.test_cfg.get('size_divisor'),
                **padding,
            )
            for sample, info in zip(samples, padded, strict=True):
                sample.set_metainfo(info)
        else:
            stacked = torch.stack(flat)
        return dict(inputs=stacked.unflatten(1, frames), data_samples=samples)
