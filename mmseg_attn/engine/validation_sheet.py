# Copyright (c) mmseg_attn contributors.
"""A sheet of pictures at each validation."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.structures import SegDataSample

from ..datasets.pictures import read_picture
from ..files import whole
from ..registry import HOOKS
from ..visualization.overlay import Legend, overlay


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

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence[SegDataSample] | None = None,
    ) -> None:
        """Keep a small copy of a chosen picture and its labels."""
        if batch_idx not in self._chosen or not is_main_process():
            return
        sample = outputs[0]
        picture = read_picture(sample.img_path)
        scale = self.height / len(picture)
        size = max(1, round(picture.shape[1] * scale)), self.height
        masks = [
            cv2.resize(
                getattr(sample, name).data[0].cpu().numpy().astype(np.uint8),
                size,
                interpolation=cv2.INTER_NEAREST,
            )
            for name in ('gt_sem_seg', 'pred_sem_seg')
        ]
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        self._rows.append((picture, masks))

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Write the sheet."""
        if not self._rows:
            return
        meta = runner.val_dataloader.dataset.metainfo
        palette = [*meta['palette'], (255, 255, 255)]
        ignored = len(meta['classes'])
        rows, present = [], set()
        for picture, masks in self._rows:
            masks = [np.minimum(mask, ignored) for mask in masks]
            present.update(*map(np.unique, masks))
            shown = [overlay(picture, mask, palette, 0.6) for mask in masks]
            rows.append(np.hstack([picture, *shown]))
        width = max(row.shape[1] for row in rows)
        rows = [
            cv2.copyMakeBorder(
                *(row, 0, 6, 0, width - row.shape[1], cv2.BORDER_CONSTANT),
                value=(255, 255, 255),
            )
            for row in rows
        ]
        legend = Legend([*meta['classes'], 'ignored'], palette)
        sheet = legend.add(np.vstack(rows), sorted(present))
        path = Path(runner.work_dir, 'sheets', f'iter_{runner.iter}.png')
        with whole(path) as partial:
            cv2.imwrite(str(partial), sheet)
        self._rows = []
