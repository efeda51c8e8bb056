# Copyright (c) mmseg_attn contributors.
"""Disparities as pictures."""

from typing import Any

import matplotlib
import mmcv
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from mmengine.dist import master_only
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer

from ..registry import VISUALIZERS

COLOURS = matplotlib.colormaps['turbo']
# Of the scale beside a picture, in pixels.
BAR_WIDTH, LEAST_HEIGHT = 88, 120
GAP = 4


def draw_disparity(*maps: np.ndarray, scale: bool = True) -> np.ndarray:
    """Colour disparities, each map beside the next, with one scale.

    From the 1st to the 99th percentile of the first map, so that single
    pixels do not take the colours of all others. Unknown ones are black.

    Args:
        *maps: (H, W) in pixels, all of one size.
        scale: Whether a bar with numbers stands at the right.

    Returns:
        (H or more, W or more, 3) uint8, RGB.
    """
    known = maps[0][np.isfinite(maps[0])]
    low, high = np.percentile(known, (1, 99)) if known.size else (0, 1)
    norm = Normalize(low, max(high, low + 1), clip=True)
    shown = []
    for disparity in maps:
        finite = np.isfinite(disparity)
        colours = COLOURS(norm(np.where(finite, disparity, low)), bytes=True)
        shown += [colours[..., :3] * finite[..., None].astype(np.uint8)]
        shown += [np.full((len(disparity), GAP, 3), 255, np.uint8)]
    shown = np.concatenate(shown[:-1], axis=1)
    if not scale:
        return shown
    bar = _scale(norm, max(len(shown), LEAST_HEIGHT))
    below = ((0, len(bar) - len(shown)), (0, 0), (0, 0))
    return np.concatenate(
        [np.pad(shown, below, constant_values=255), bar], axis=1
    )


def _scale(norm: Normalize, height: int) -> np.ndarray:
    """A bar of colours with numbers, (height, BAR_WIDTH, 3) uint8 RGB."""
    dpi = 100
    figure = Figure(figsize=(BAR_WIDTH / dpi, height / dpi), dpi=dpi)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.14, 0.06, 0.2, 0.88))
    bar = figure.colorbar(ScalarMappable(norm, COLOURS), cax=axes)
    bar.set_label('disparity, pixels', fontsize=8)
    bar.ax.tick_params(labelsize=8)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:height, :BAR_WIDTH, :3]


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
