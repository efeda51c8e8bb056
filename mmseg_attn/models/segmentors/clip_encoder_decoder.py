# Copyright (c) mmseg_attn contributors.
"""A segmentor for clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models import EncoderDecoder
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.utils.data import Dataset

from ...errors import UserError
from ...registry import MODELS
from ..decode_heads.cc_head_3d import check_label_frame, middle


@MODELS.register_module()
class ClipEncoderDecoder(EncoderDecoder):
    """Segments one frame of a clip with the help of the others.

    The backbone sees each frame for itself; the decode head, such as
    :class:`CCHead3D`, sees the clip; auxiliary heads see the labelled frame.
    The weights of a segmentor for pictures load.

    Args:
        label_frame: Which frame of a clip is segmented, from 0 on. None means
            the middle one, T // 2.
        decode_head: Config of a head on maps (B, C, T, H, W).
        kwargs: Further arguments of mmseg's ``EncoderDecoder``.
    """

    def __init__(
        self, decode_head: dict, label_frame: int | None = None, **kwargs: Any
    ):
        check_label_frame(type(self).__name__, label_frame)
        self.label_frame = label_frame
        head = {**decode_head, 'label_frame': label_frame}
        super().__init__(decode_head=head, **kwargs)

    def extract_feat(self, inputs: Tensor) -> list[Tensor]:
        """Maps of each frame.

        Args:
            inputs: Clips (B, C, T, H, W), or pictures (B, C, H, W), which
                are clips of one frame.

        Returns:
            Maps (B, C, T, h, w).
        """
        if inputs.ndim == 4:
            inputs = inputs[:, :, None]
        batch, frames = inputs.shape[0], inputs.shape[2]
        pictures = inputs.transpose(1, 2).flatten(0, 1)
        return [
            x.unflatten(0, (batch, frames)).transpose(1, 2)
            for x in super().extract_feat(pictures)
        ]

    def _auxiliary_head_forward_train(
        self, inputs: list[Tensor], data_samples: list[SegDataSample]
    ) -> dict:
        frame = middle(inputs[0].shape[2], self.label_frame)
        return super()._auxiliary_head_forward_train(
            [x[:, :, frame] for x in inputs], data_samples
        )

    def loss(
        self, inputs: Tensor, data_samples: list[SegDataSample]
    ) -> dict[str, Tensor]:
        """Losses on the labelled frames.

        Args:
            inputs: (B, C, T, H, W).
            data_samples: Samples of the labelled frames.

        Returns:
            The losses by name.

        Raises:
            UserError: The dataset labels another frame than the model
                segments.
        """
        self._check(inputs, data_samples)
        return super().loss(inputs, data_samples)

    def predict(
        self,
        inputs: Tensor,
        data_samples: list[SegDataSample] | None = None,
    ) -> list[SegDataSample]:
        """Segment the labelled frame of each clip.

        Args:
            inputs: (B, C, T, H, W).
            data_samples: Samples of the labelled frames.

        Returns:
            Samples with ``pred_sem_seg`` and ``seg_logits``.

        Raises:
            UserError: The dataset labels another frame than the model
                segments.
        """
        self._check(inputs, data_samples)
        if data_samples is None:
            size = tuple(inputs.shape[-2:])
            meta = dict(ori_shape=size, img_shape=size, pad_shape=size)
            metas = [dict(meta, padding_size=[0] * 4) for _ in inputs]
        else:
            metas = [sample.metainfo for sample in data_samples]
        logits = self.inference(inputs, metas)
        return self.postprocess_result(logits, data_samples)

    def check_label_frame(self, dataset: Dataset) -> None:
        """Compare with a dataset before a run.

        Args:
            dataset: A dataset of clips; another kind is passed over.

        Raises:
            UserError: It labels another frame than the model segments.
        """
        if not hasattr(dataset, 'label_frame'):
            return
        ours = middle(dataset.frames, self.label_frame)
        if ours != dataset.label_frame:
            raise UserError(
                f'frame {dataset.label_frame} of {dataset.frames} has the '
                f'label in the {type(dataset).__name__} (dataset.label_frame '
                f'of its dataloader), the model segments frame {ours} '
                '(model.label_frame): set both alike.'
            )

    def _check(
        self, inputs: Tensor, data_samples: list[SegDataSample] | None
    ) -> None:
        ours = middle(inputs.shape[2], self.label_frame)
        for sample in data_samples or ():
            theirs = sample.metainfo.get('label_frame', ours)
            if theirs != ours:
                raise UserError(
                    f'{sample.get("img_path")} is frame {theirs} of its clip '
                    f'(dataset.label_frame), the model segments frame {ours} '
                    '(model.label_frame): set both alike.'
                )

    def slide_inference(
        self, inputs: Tensor, batch_img_metas: list[dict]
    ) -> Tensor:
        """Logits of the labelled frames, window by window.

        As the host does it, with the frames among the channels meanwhile.
        """
        self._frames = inputs.shape[2]
        try:
            return super().slide_inference(
                inputs.flatten(1, 2), batch_img_metas
            )
        finally:
            del self._frames

    def encode_decode(
        self, inputs: Tensor, batch_img_metas: list[dict]
    ) -> Tensor:
        """Logits of the labelled frames at the size of the pictures."""
        frames = getattr(self, '_frames', None)
        if frames:
            inputs = inputs.unflatten(1, (-1, frames))
        return super().encode_decode(inputs, batch_img_metas)

    def encode_frame(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """What a clip needs of one frame, for :meth:`decode_frames`.

        Args:
            inputs: (B, C, 1, H, W).

        Returns:
            The backbone's map (B, in_channels, 1, h, w), and what the
            attention works on, (B, channels, 1, h, w).
        """
        head = self.decode_head
        x = head._transform_inputs(self.extract_feat(inputs))
        return x, head.reduce(x)

    def decode_frames(
        self, x: Tensor, reduced: Sequence[Tensor], batch_img_metas: list[dict]
    ) -> Tensor:
        """Segment a frame whose clip was encoded frame by frame.

        Args:
            x: The labelled frame's map, the first of
                :meth:`encode_frame`.
            reduced: The second result of it, of each frame of the clip.
            batch_img_metas: Meta data of the labelled frames.

        Returns:
            Logits at the size of the pictures, as :meth:`encode_decode`
            gives them.
        """
        head = self.decode_head
        attended = head.attend(torch.cat(list(reduced), dim=2))
        frame = middle(len(reduced), self.label_frame)
        logits = head.segment(x[:, :, 0], attended[:, :, frame])
        return head.predict_by_feat(logits, batch_img_metas)
