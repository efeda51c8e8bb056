# Copyright (c) mmseg_attn contributors.
"""A sheet of pictures at each validation."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from ..files import whole
from ..pictures import read_picture
from ..registry import HOOKS
from ..visualization.instances import InstancePainter
from ..visualization.overlay import Legend, overlay, with_ignored

# Instances with less are not drawn.
SCORE = 0.3


@HOOKS.register_module()
class ValidationSheetHook(Hook):
    """Draws some pictures of each validation, their truth and prediction.

    They go to ``sheets`` in the work folder, a PNG file for each validation.

    Args:
        pictures: How many are drawn, spread over the validation set.
        height: Their height on the sheet, in pixels.
    """

    priority = 'LOW'

    def __init__(self, pictures: int = 6, height: int = 160) -> None:
        self.pictures, self.height = pictures, height
        self._rows = []
        self._chosen = set()

    def before_val_epoch(self, runner: Runner) -> None:
        """Choose the pictures, the same each time."""
        total = len(runner.val_dataloader)
        places = np.linspace(0, total - 1, min(self.pictures, total))
        self._chosen = set(places.round().astype(int).tolist())
        self._rows = []
        self.begin(runner.val_dataloader.dataset.metainfo)

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[BaseDataElement] | None = None,
    ) -> None:
        """Draw a chosen picture."""
        if batch_idx not in self._chosen or not is_main_process():
            return
        picture = read_picture(outputs[0].img_path)
        scale = self.height / len(picture)
        size = max(1, round(picture.shape[1] * scale)), self.height
        shown = self.draw(picture, size, outputs[0])
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        self._rows.append(np.hstack([picture, *shown]))

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Write the sheet."""
        if not self._rows:
            return
        width = max(row.shape[1] for row in self._rows)
        rows = [
            cv2.copyMakeBorder(
                *(row, 0, 6, 0, width - row.shape[1], cv2.BORDER_CONSTANT),
                value=(255, 255, 255),
            )
            for row in self._rows
        ]
        sheet = self.finish(np.vstack(rows))
        # Sorted by their names, the last one is the last.
        path = Path(runner.work_dir, 'sheets', f'iter_{runner.iter:06d}.png')
        with whole(path) as partial:
            cv2.imwrite(str(partial), sheet)
        self._rows = []

    def begin(self, metainfo: dict) -> None:
        """Prepare what draws.

        Args:
            metainfo: That of the dataset, with ``classes`` and ``palette``.
        """
        self.classes, self.palette = with_ignored(metainfo)
        self.present = set()

    def draw(
        self,
        picture: np.ndarray,
        size: tuple[int, int],
        sample: BaseDataElement,
    ) -> list[np.ndarray]:
        """Draw the truth and the prediction.

        Args:
            picture: (H, W, 3) uint8, BGR.
            size: Width and height of what is drawn.
            sample: What was predicted of it.

        Returns:
            Two pictures of the size.
        """
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        shown = []
        for name in ('gt_sem_seg', 'pred_sem_seg'):
            mask = getattr(sample, name).data[0].cpu().numpy()
            mask = np.minimum(mask, len(self.classes) - 1).astype(np.uint8)
            mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
            self.present.update(np.unique(mask))
            shown.append(overlay(picture, mask, self.palette, 0.6))
        return shown

    def finish(self, sheet: np.ndarray) -> np.ndarray:
        """Add to the sheet what stands beside its rows."""
        legend = Legend(self.classes, self.palette)
        return legend.add(sheet, sorted(self.present))


@HOOKS.register_module()
class InstanceSheetHook(ValidationSheetHook):
    """The same with the boxes and masks of a detector, named on the picture.

    The annotations are to be loaded behind the resizing, so that they have
    the size of the picture as the predictions do.
    """

    def begin(self, metainfo: dict) -> None:
        """Prepare what draws, as the base class says."""
        self.paint = InstancePainter(metainfo, 0.6)

    def draw(
        self,
        picture: np.ndarray,
        size: tuple[int, int],
        sample: BaseDataElement,
    ) -> list[np.ndarray]:
        """Draw the truth and the prediction, as the base class says."""
        found = sample.pred_instances
        found = found[found.scores >= SCORE].cpu()
        return [
            cv2.resize(
                self.paint(picture, instances),
                size,
                interpolation=cv2.INTER_AREA,
            )
            for instances in (sample.gt_instances.cpu(), found)
        ]

    def finish(self, sheet: np.ndarray) -> np.ndarray:
        """Return the sheet: its instances have their names on them."""
        return sheet
