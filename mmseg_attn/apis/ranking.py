# Copyright (c) mmseg_attn contributors.
"""Find the pictures that a model does worst."""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from mmseg.evaluation import IoUMetric
from torch import nn

from ..configs import SPLITS
from ..engine.data_checks import check_paths, dataset_configs
from ..engine.samples import load_sample
from ..errors import UserError, near
from ..files import whole
from ..progress import make_progress
from ..visualization.scores import PictureScore, draw_worst
from .predictors import Segmenter
from .tasks import SEGMENTOR, check_model, check_task


@dataclass(frozen=True)
class Ranking:
    """The pictures of a dataset, the worst first.

    Attributes:
        rows: For each picture its value, by which they are ordered and which
            is NaN where nothing counts, its path, the IoU of each class and
            the mIoU, in per cent.
        worst: The first of them, with their maps.
        classes: Names of the classes.
        palette: (red, green, blue) of each class.
        ignore_index: The label of pixels that count for nothing.
        pictures: Those of ``worst``, (H, W, 3) uint8 BGR.
        sequences: How many sequences there are, if one picture of each was
            asked for.
    """

    rows: list[tuple[float, str, np.ndarray, float]]
    worst: list[PictureScore]
    classes: list[str]
    palette: list[list[int]]
    ignore_index: int
    pictures: list[np.ndarray]
    sequences: int | None = None

    def save(self, folder: str | Path) -> tuple[Path, Path]:
        """Write a table of all pictures and a sheet of the worst.

        Args:
            folder: Where to; earlier ones are replaced.

        Returns:
            Paths of ``scores.csv`` and ``worst.png``.
        """
        table, sheet = Path(folder, 'scores.csv'), Path(folder, 'worst.png')
        with (
            whole(table) as path,
            open(path, 'w', encoding='utf-8', newline='') as stream,
        ):
            lines = csv.writer(stream)
            lines.writerow(['picture', 'mIoU', *self.classes])
            for _, name, iou, miou in self.rows:
                cells = ['' if np.isnan(v) else f'{v:.2f}' for v in iou]
                mean = '' if np.isnan(miou) else f'{miou:.2f}'
                lines.writerow([name, mean, *cells])
        figure = draw_worst(
            self.worst,
            self.pictures,
            classes=self.classes,
            palette=self.palette,
            ignore_index=self.ignore_index,
        )
        with whole(sheet) as path:
            figure.savefig(path)
        return table, sheet


def worst(
    model: nn.Module,
    split: str = 'test',
    *,
    number: int = 8,
    by_class: str | None = None,
    one_per_sequence: bool = False,
) -> Ranking:
    """Segment the pictures of a config's dataset and put the worst first.

    Args:
        model: A segmentor of single pictures, as from
            :func:`~mmseg_attn.apis.load_model`.
        split: ``'test'``, ``'val'`` or ``'train'``.
        number: How many pictures keep their maps.
        by_class: Order by the IoU of this class instead of by the mIoU.
        one_per_sequence: Keep of each sequence (:func:`sequence_of`) the worst
            picture alone, since neighbouring frames fail alike.

    Returns:
        All pictures with their scores; ``save`` writes a table and a sheet.

    Raises:
        UserError: The model is none of single pictures, the data cannot be
            read, there is no such class, or nothing is labelled.
    """
    if not isinstance(number, int) or number < 1:
        raise UserError(f'number (--number) must be 1 or more, got {number}.')
    check_model(model)
    if split not in SPLITS:
        raise UserError(
            f'the split is {split!r}, expected {", ".join(SPLITS)}.'
            + near(str(split), SPLITS)
        )
    cfg = model.cfg
    check_task(cfg, SEGMENTOR)
    check_paths(cfg, f'{split}_dataloader')
    classes = list(model.dataset_meta['classes'])
    if by_class is not None and by_class not in classes:
        raise UserError(
            f'the class {by_class!r} is none of {", ".join(classes)}.'
            + near(by_class, classes)
        )
    column = None if by_class is None else classes.index(by_class)
    dataset = _build_dataset(cfg, split)
    ignore_index = getattr(model.decode_head, 'ignore_index', 255)
    suffix = getattr(dataset, 'img_suffix', '')
    rows, kept, sequences = [], {}, set()
    with make_progress() as progress:
        task = progress.add_task('pictures', total=len(dataset))
        for score in score_pictures(model, dataset, ignore_index):
            value = score.miou if column is None else score.iou[column]
            rows.append((value, score.path, score.iou, score.miou))
            key = score.path
            if one_per_sequence:
                key = sequence_of(score.path, suffix)
                sequences.add(key)
            if not np.isnan(value) and value < kept.get(key, (np.inf,))[0]:
                kept[key] = value, len(rows), score
                # Only the maps of the worst so far are kept.
                first = sorted(kept.items(), key=lambda item: item[1][:2])
                kept = dict(first[:number])
            progress.advance(task)
    if not kept:
        raise UserError(
            f'none of {len(dataset)} pictures has '
            + (f'the class {by_class}.' if by_class else 'a label.')
        )
    # NaN last.
    rows.sort(key=lambda item: (np.isnan(item[0]), item[0]))
    found = [score for *_, score in kept.values()]
    segmenter = Segmenter(model)
    return Ranking(
        rows=rows,
        worst=found,
        classes=classes,
        palette=model.dataset_meta['palette'],
        ignore_index=ignore_index,
        pictures=[segmenter.prepare(score.path).picture for score in found],
        sequences=len(sequences) if one_per_sequence else None,
    )


def sequence_of(path: str, suffix: str = '') -> str:
    """Name the sequence that a frame is of.

    Args:
        path: The frame.
        suffix: What ends the names of all pictures, such as
            ``'_leftImg8bit.png'``, and belongs to no number.

    Returns:
        Its folder and what its name has before the last number:
        ``0001TP`` of ``0001TP_006690.png``. A name without a number is a
        sequence of its own.
    """
    folder, name = os.path.split(path)
    stem = name.removesuffix(suffix) if suffix else os.path.splitext(name)[0]
    frame = re.fullmatch(r'(.*?)[-_. ]*\d+\D*', stem)
    return os.path.join(folder, frame[1] if frame else name)


@torch.inference_mode()
def score_pictures(
    model: nn.Module, dataset: Sequence, ignore_index: int = 255
) -> Iterator[PictureScore]:
    """Segment the pictures of a dataset one by one and compare.

    Args:
        model: A segmentor, as from
            :func:`~mmseg_attn.apis.load_model`.
        dataset: A dataset of MMSegmentation whose pipeline gives the label map
            in the picture's own size.
        ignore_index: The label of pixels that count for nothing.

    Yields:
        Of each picture, in their order.

    Raises:
        UserError: A file cannot be read, or a label map has another size or a
            label that is no class.
    """
    classes = len(model.dataset_meta['classes'])
    for index in range(len(dataset)):
        sample = load_sample(dataset, index)
        result = model.test_step(pseudo_collate([sample]))[0]
        path = result.metainfo.get('img_path', f'number {index}')
        if 'gt_sem_seg' not in result:
            raise UserError(f'{path} has no label map to compare with.')
        truth = result.gt_sem_seg.data.squeeze(0).cpu()
        found = result.pred_sem_seg.data.squeeze(0).cpu().long()
        if truth.shape != found.shape:
            raise UserError(
                f'the label map of {path} has {tuple(truth.shape)} pixels, '
                f'the prediction {tuple(found.shape)}: in the test pipeline '
                'LoadAnnotations must stand behind Resize.'
            )
        wrong = truth[(truth >= classes) & (truth != ignore_index)]
        if len(wrong):
            raise UserError(
                f'the label map of {path} holds {int(wrong[0])}, expected 0 '
                f'to {classes - 1}, or {ignore_index}. `python -m mmseg_attn '
                'labels CONFIG` finds all of them.'
            )
        areas = IoUMetric.intersect_and_union(
            found, truth, classes, ignore_index
        )
        intersection, union = (area.numpy() for area in areas[:2])
        yield PictureScore(
            path, truth.numpy(), found.numpy(), intersection, union
        )


def _build_dataset(cfg: Config, split: str) -> Sequence:
    found = list(dataset_configs(cfg.get(f'{split}_dataloader')))
    if len(found) != 1:
        raise UserError(
            f'{split}_dataloader has {len(found)} datasets, expected one.'
        )
    config = found[0]
    if split == 'train':
        # As in testing: no crop, no change of colours.
        tests = [
            item.pipeline
            for loader in ('test_dataloader', 'val_dataloader')
            for item in dataset_configs(cfg.get(loader))
        ]
        config.pipeline = tests[0] if tests else cfg.test_pipeline
    return DATASETS.build(config)
