# Copyright (c) mmseg_attn contributors.
"""Draw what a network sees in clips."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.runner import Runner
from mmseg.engine import SegVisualizationHook
from mmseg.structures import SegDataSample

from ..registry import HOOKS
from ..video.clips import read_clip_frame


@HOOKS.register_module()
class ClipVisualizationHook(SegVisualizationHook):
    """Draws the labelled frames of clips, those in video files as well.

    mmseg's hook reads every frame as a picture file.

    Arguments as of mmseg's ``SegVisualizationHook``.
    """

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict,
        outputs: Sequence[SegDataSample],
    ) -> None:
        """Draw the first clip of every ``interval``-th batch."""
        step = runner.iter + batch_idx
        if self.draw and step % self.interval == 0:
            self._draw(outputs[0], 'val', step)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict,
        outputs: Sequence[SegDataSample],
    ) -> None:
        """Draw every clip."""
        if self.draw:
            for sample in outputs:
                self._test_index += 1
                self._draw(sample, 'test', self._test_index)

    def _draw(self, sample: SegDataSample, phase: str, step: int) -> None:
        self._visualizer.add_datasample(
            f'{phase}_{Path(sample.img_path).name}',
            read_clip_frame(sample.img_path)[..., ::-1],
            data_sample=sample,
            show=self.show,
            wait_time=self.wait_time,
            step=step,
        )
