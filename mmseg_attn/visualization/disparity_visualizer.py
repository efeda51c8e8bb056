# Copyright (c) mmseg_attn contributors.
"""Disparities in the pictures that a training or test draws."""

from typing import Any

import mmcv
import numpy as np
from mmengine.dist import master_only
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer

from ..registry import VISUALIZERS
from .disparity import GAP, draw_disparity


@VISUALIZERS.register_module()
class DisparityVisualizer(Visualizer):
    """Draws what a stereo network predicts, for mmseg's visualization hook.

    The left picture, the true disparities where they are known, and the
    predicted ones, with one scale. The arguments are those of
    mmengine's ``Visualizer``.
    """

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: BaseDataElement | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        step: int = 0,
        **kwargs: Any,
    ) -> None:
        """Draw a pair and show or save it.

        Args:
            name: Name of the picture.
            image: (H, W, 3) uint8, RGB.
            data_sample: With ``pred_disparity`` and perhaps ``gt_disparity``.
            draw_gt: Whether to draw the true disparities.
            draw_pred: Whether to draw the predicted ones.
            show: Whether to open a window.
            wait_time: Seconds that it stays open; 0: until closed.
            out_file: Where to write it instead of handing it to the backends.
            step: Step of the training.
            kwargs: What is for other kinds of results.
        """
        maps = [
            data_sample.get(key).data[0].cpu().numpy()
            for key, wanted in (
                ('gt_disparity', draw_gt),
                ('pred_disparity', draw_pred),
            )
            if wanted and data_sample is not None and key in data_sample
        ]
        drawn = image
        if maps:
            maps = draw_disparity(*maps)
            below = ((0, len(maps) - len(image)), (0, GAP), (0, 0))
            drawn = np.pad(image, below, constant_values=255)
            drawn = np.concatenate([drawn, maps], axis=1)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(mmcv.rgb2bgr(drawn), out_file)
        else:
            self.add_image(name, drawn, step)
