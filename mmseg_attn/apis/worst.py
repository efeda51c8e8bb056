# Copyright (c) mmseg_attn contributors.
"""``python -m mmseg_attn worst``: the pictures that a model does worst."""

import argparse
import csv
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from mmengine.config import Config, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from rich.console import Console
from rich.table import Table
from torch import nn

from ..configs import find_config
from ..errors import UserError
from ..files import whole
from ..progress import make_progress, quiet_hosts
from ..visualization.overlay import paint

with quiet_hosts():
    from mmseg.evaluation import IoUMetric

    from ..engine.data_checks import (
        check_output_folder,
        check_paths,
        dataset_configs,
    )
    from ..engine.samples import load_sample
    from .inference import Segmenter, check_segmentor, load_model

# Classes in a line of the legend.
PER_LINE = 6


@dataclass(frozen=True, eq=False)  # arrays do not compare
class PictureScore:
    """How well one picture is segmented.

    Attributes:
        path (str): The picture.
        truth (np.ndarray): (H, W) class indices.
        prediction (np.ndarray): (H, W) class indices.
        intersection (np.ndarray): (classes,) Pixels of both.
        union (np.ndarray): (classes,) Pixels of either; ignored ones count
            for nothing.
    """

    path: str
    truth: np.ndarray
    prediction: np.ndarray
    intersection: np.ndarray
    union: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        """(classes,) In per cent; NaN for a class in neither map."""
        with np.errstate(invalid='ignore'):
            return 100 * self.intersection / self.union

    @property
    def miou(self) -> float:
        """Mean over the classes in either map; NaN if nothing counts."""
        present = self.iou[self.union > 0]
        return float(present.mean()) if len(present) else float('nan')

    @property
    def worst_class(self) -> int:
        """Index of the class of the lowest IoU, of the largest of these."""
        iou = np.where(self.union > 0, self.iou, np.inf)
        return int(np.lexsort((-self.union, iou))[0])


@torch.inference_mode()
def score_pictures(
    model: nn.Module, dataset: Sequence, ignore_index: int = 255
) -> Iterator[PictureScore]:
    """Segment the pictures of a dataset one by one and compare.

    Args:
        model (nn.Module): A segmentor, as from
            :func:`~mmseg_attn.apis.inference.load_model`.
        dataset (Sequence): A dataset of MMSegmentation whose pipeline gives
            the label map in the picture's own size.
        ignore_index (int): The label of pixels that count for nothing.

    Yields:
        PictureScore: Of each picture, in their order.

    Raises:
        UserError: A file cannot be read, or a label map has another size or
            a label that is no class.
    """
    classes = len(model.dataset_meta['classes'])
    for index in range(len(dataset)):
        sample = load_sample(dataset, index)
        result = model.test_step(pseudo_collate([sample]))[0]
        path = result.metainfo.get('img_path', f'number {index}')
        if 'gt_sem_seg' not in result:
            raise UserError(f'{path} has no label map to compare with.')
        truth = result.gt_sem_seg.data.squeeze(0).cpu()
        found = result.pred_sem_seg.data.squeeze(0).cpu()
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


def draw_worst(
    model: nn.Module, scores: Sequence[PictureScore], ignore_index: int = 255
) -> Figure:
    """Draw pictures, truth, prediction and errors, a row for each picture.

    Args:
        model (nn.Module): As in :func:`score_pictures`.
        scores (Sequence[PictureScore]): The pictures to be drawn.
        ignore_index (int): The label of pixels that count for nothing.

    Returns:
        Figure: To be saved.
    """
    classes = model.dataset_meta['classes']
    palette = model.dataset_meta['palette']
    segmenter = Segmenter(model)
    sides = [min(s.truth.shape[0] / s.truth.shape[1], 1.5) for s in scores]
    present = np.sum([score.union for score in scores], axis=0).nonzero()[0]
    lines = -(-len(present) // PER_LINE)
    width = 2.6
    figure = Figure(
        (4 * width, width * sum(sides) + 0.35 * len(scores) + 0.3 * lines),
        dpi=150,
        layout='constrained',
        facecolor='white',
    )
    axes = figure.subplots(len(scores), 4, squeeze=False, height_ratios=sides)
    for row, score in zip(axes, scores, strict=True):
        picture = segmenter.prepare(score.path).picture
        ignored = score.truth == ignore_index
        shown = [
            picture[..., ::-1],
            paint(np.where(ignored, 255, score.truth), palette),
            paint(score.prediction, palette),
            _errors(picture, score, ignored),
        ]
        worst = score.worst_class
        titles = [
            _short(Path(score.path).name, 34),
            'truth',
            f'prediction, mIoU {score.miou:.1f}',
            f'errors; {_short(classes[worst], 18)} {score.iou[worst]:.1f}',
        ]
        for axis, image, title in zip(row, shown, titles, strict=True):
            axis.imshow(image, interpolation='nearest')
            axis.set_title(title, fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
    figure.legend(
        handles=[
            Patch(
                facecolor=np.array(palette[index]) / 255,
                edgecolor='grey',
                label=_short(classes[index], 22),
            )
            for index in present
        ],
        loc='outside lower center',
        ncols=min(PER_LINE, len(present)),
        frameon=False,
        fontsize=9,
    )
    return figure


def _errors(
    picture: np.ndarray, score: PictureScore, ignored: np.ndarray
) -> np.ndarray:
    """The picture in grey, wrong pixels red, ignored ones white."""
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    shown = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    wrong = (score.prediction != score.truth) & ~ignored
    shown[wrong] = 0.35 * shown[wrong] + 0.65 * np.array([230, 30, 30])
    shown[ignored] = 255
    return shown


def _short(text: str, length: int) -> str:
    text = str(text)
    return text if len(text) <= length else f'{text[: length - 1]}…'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('config', help='config file, or name of a packaged config')
    add('checkpoint', help='trained weights')
    add(
        '-n',
        '--number',
        type=int,
        default=8,
        help='pictures on the sheet (default: %(default)s)',
    )
    add(
        '--class',
        dest='name',
        metavar='CLASS',
        help='order by the IoU of this class (default: by the mIoU)',
    )
    add(
        '-o',
        '--out',
        type=Path,
        default=Path('worst'),
        help='folder for scores.csv and worst.png (default: %(default)s)',
    )
    add('--split', choices=['test', 'val', 'train'], default='test')
    add('--overwrite', action='store_true', help='replace earlier results')
    add('--device', help='such as cpu or cuda:0 (default: the best there is)')
    add(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='change settings of the config, as key=value',
    )


def main(args: argparse.Namespace) -> int | None:
    try:
        with quiet_hosts():
            _find_worst(args)
    except (UserError, OSError) as error:
        raise SystemExit(f'Error: {error}') from error
    except KeyboardInterrupt:
        return 130


def _find_worst(args: argparse.Namespace) -> None:
    if args.number < 1:
        raise UserError(f'--number must be 1 or more, got {args.number}.')
    table, sheet = args.out / 'scores.csv', args.out / 'worst.png'
    for path in (table, sheet):
        if path.exists() and not args.overwrite:
            raise UserError(f'{path} exists; replace it with --overwrite.')
    cfg = Config.fromfile(find_config(args.config))
    check_segmentor(cfg)
    cfg.merge_from_dict(args.cfg_options or {})
    check_output_folder(cfg, args.out)
    check_paths(cfg, f'{args.split}_dataloader')
    model = load_model(cfg, args.checkpoint, device=args.device)
    classes = list(model.dataset_meta['classes'])
    if args.name is not None and args.name not in classes:
        raise UserError(
            f'--class {args.name!r} is none of {", ".join(classes)}.'
        )
    column = None if args.name is None else classes.index(args.name)
    dataset = _build_dataset(cfg, args.split)
    ignore_index = getattr(model.decode_head, 'ignore_index', 255)
    scores, worst = [], []
    with make_progress() as progress:
        task = progress.add_task('pictures', total=len(dataset))
        for score in score_pictures(model, dataset, ignore_index):
            value = score.miou if column is None else score.iou[column]
            scores.append((value, score.path, score.iou, score.miou))
            if not np.isnan(value):
                # Only the maps of the worst so far are kept.
                worst.append((value, len(scores), score))
                worst = sorted(worst, key=lambda item: item[:2])[: args.number]
            progress.advance(task)
    if not worst:
        raise UserError(
            f'none of {len(dataset)} pictures has '
            + (f'the class {args.name}.' if args.name else 'a label.')
        )
    # NaN last.
    scores.sort(key=lambda item: (np.isnan(item[0]), item[0]))
    with (
        whole(table) as path,
        open(path, 'w', encoding='utf-8', newline='') as stream,
    ):
        rows = csv.writer(stream)
        rows.writerow(['picture', 'mIoU', *classes])
        for _, name, iou, miou in scores:
            rows.writerow(
                [name]
                + ['' if np.isnan(v) else f'{v:.2f}' for v in (miou, *iou)]
            )
    chosen = [score for *_, score in worst]
    with whole(sheet) as path:
        draw_worst(model, chosen, ignore_index).savefig(path)
    _print(chosen, [item[0] for item in scores], classes, args.name)
    print(f'All pictures: {table}; the worst: {sheet}')


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


def _print(
    worst: Sequence[PictureScore],
    values: Sequence[float],
    classes: Sequence[str],
    name: str | None,
) -> None:
    what = 'mIoU' if name is None else f'IoU of {name}'
    median = np.nanmedian(values)
    table = Table('picture', 'mIoU', 'worst class', 'its IoU')
    for score in worst:
        index = score.worst_class
        table.add_row(
            os.path.basename(score.path),
            f'{score.miou:.1f}',
            str(classes[index]),
            f'{score.iou[index]:.1f}',
        )
    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(
        f'{len(worst)} of {len(values)} pictures with the lowest {what} in '
        f'per cent; the median is {median:.1f}',
        highlight=False,
        markup=False,
    )
    console.print(table)
