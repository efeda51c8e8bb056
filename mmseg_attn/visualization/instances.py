# Copyright (c) mmseg_attn contributors.
"""Boxes and masks over pictures, drawn by MMDetection."""

import numpy as np
from mmengine.structures import InstanceData


class InstancePainter:
    """Draws boxes, names and masks with MMDetection's visualizer.

    Args:
        meta: ``classes`` and ``palette``.
        opacity: Opacity of the masks, 0 to 1.
    """

    def __init__(self, meta: dict, opacity: float) -> None:
        from mmdet.visualization import DetLocalVisualizer

        self.visualizer = DetLocalVisualizer(alpha=opacity)
        self.visualizer.dataset_meta = dict(
            classes=meta['classes'],
            palette=[tuple(c) for c in meta['palette']],
        )

    def __call__(
        self, picture: np.ndarray, instances: InstanceData
    ) -> np.ndarray:
        """Draw them over a picture (H, W, 3) uint8 BGR, which is kept."""
        from mmdet.structures import DetDataSample

        # Shades are drawn by lot: let them be the same for each frame.
        state = np.random.get_state()
        np.random.seed(0)
        self.visualizer.add_datasample(
            'instances',
            np.ascontiguousarray(picture[..., ::-1]),
            DetDataSample(gt_instances=instances),
            draw_pred=False,
        )
        np.random.set_state(state)
        return self.visualizer.get_image()[..., ::-1]
