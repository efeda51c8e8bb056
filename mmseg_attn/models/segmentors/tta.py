# Copyright (c) mmseg_attn contributors.
"""Test-time mirroring of classes with a left and a right."""

from collections.abc import Sequence
from typing import Any

from mmengine.structures import PixelData
from mmseg.models import SegTTAModel as HostTTAModel
from mmseg.structures import SegDataSample

from ...registry import MODELS


@MODELS.register_module()
class SegTTAModel(HostTTAModel):
    """Test-time augmentation that is right for one logit, and keeps scores.

    The host takes the sigmoid of what it has made probabilities of already,
    so that with ``out_channels=1`` every pixel is above the threshold, and
    leaves the logits of one view beside the prediction. The arguments are
    those of ``mmseg.models.SegTTAModel``.
    """

    def merge_preds(
        self, data_samples_list: list[list[SegDataSample]]
    ) -> list[SegDataSample]:
        """Average the probabilities of each picture's views.

        Args:
            data_samples_list: For each picture its views, with ``seg_logits``
                turned back: logits (classes, H, W), or the probability of
                the foreground (1, H, W).

        Returns:
            One sample per picture, with ``pred_sem_seg`` (H, W), or (1, H, W)
            where there is one logit, and the mean probabilities as
            ``seg_logits``.
        """
        merged = []
        for views in data_samples_list:
            maps = [view.seg_logits.data for view in views]
            if self.module.out_channels > 1:
                mean = sum(x.softmax(0) for x in maps) / len(maps)
                found = mean.argmax(0)
            else:
                mean = sum(maps) / len(maps)
                found = (mean > self.module.decode_head.threshold).to(mean)
            sample = views[0]
            data = dict(pred_sem_seg=found, seg_logits=mean)
            sample.set_data({k: PixelData(data=v) for k, v in data.items()})
            merged.append(sample)
        return merged


@MODELS.register_module()
class MirrorTTAModel(SegTTAModel):
    """Test-time augmentation for classes that have a left and a right.

    A mirrored picture shows a left arm where the right one is. The host
    mirrors the prediction back but leaves its channels, so that left and
    right would be averaged; here they change places first.

    Args:
        swap_labels: Pairs of class indices that a horizontal flip turns into
            each other; the same as ``RandomFlip(swap_seg_labels=...)`` in
            training.
        kwargs: Arguments of ``mmseg.models.SegTTAModel``.

    Raises:
        ValueError: ``swap_labels`` is not pairs of different classes of the
            model.

    Source: CE2P (https://arxiv.org/abs/1809.05996), mirror averaging.
    """

    def __init__(
        self, swap_labels: Sequence[tuple[int, int]], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.order = list(range(self.module.out_channels))
        pairs = isinstance(swap_labels, Sequence) and all(
            isinstance(pair, Sequence) for pair in swap_labels
        )
        flat = [n for pair in swap_labels for n in pair] if pairs else []
        if (
            not pairs
            or any(len(pair) != 2 for pair in swap_labels)
            or len(set(flat)) != len(flat)
            or not set(flat) <= set(self.order)
        ):
            raise ValueError(
                'swap_labels must be pairs of different class indices below '
                f'{len(self.order)}, got {swap_labels}'
            )
        for left, right in swap_labels:
            self.order[left], self.order[right] = right, left

    def merge_preds(
        self, data_samples_list: list[list[SegDataSample]]
    ) -> list[SegDataSample]:
        """Average the predictions of each picture's views.

        Args:
            data_samples_list: For each picture its views, with
                ``seg_logits`` (classes, H, W) turned back.

        Returns:
            A sample for each picture, with ``pred_sem_seg`` (H, W).
        """
        for samples in data_samples_list:
            for sample in samples:
                if sample.get('flip') and (
                    sample.flip_direction == 'horizontal'
                ):
                    logits = sample.seg_logits.data
                    sample.seg_logits.data = logits[self.order]
        return super().merge_preds(data_samples_list)
