# Copyright (c) mmseg_attn contributors.
"""What the labels of a config's datasets hold, and what is wrong in them."""

import copy
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, init_default_scope
from rich.table import Table
from rich.text import Text

from ..datasets import CheckAnnotations
from ..datasets.coco import CocoReport, check_usable
from ..datasets.label_survey import LabelSurvey
from ..datasets.leftovers import leftovers
from ..engine.config_errors import config_mistakes
from ..engine.data_checks import (
    check_class_lists,
    check_instances,
    check_paths,
    dataset_configs,
    decode_head,
    no_sample,
    use_own_loader,
)
from ..engine.samples import load_sample
from ..errors import UserError
from ..hosts import HostError
from ..progress import make_progress


class Report(Protocol):
    """What is said of one dataset or annotation file.

    Attributes:
        problems: What is wrong, a line each.
    """

    problems: list[str]

    def summary(self) -> str:
        """Say what was read, in a line."""

    def table(self) -> Table:
        """Say how often each class occurs."""

    def remarks(self) -> list[str]:
        """Say what may be meant so, a line each."""


@dataclass
class LabelReport:
    """What the label maps of one dataset hold.

    Attributes:
        title: The splits that read the dataset, its class and folder.
        classes: Names of the dataset's classes.
        ignore_index: The label of pixels that count for nothing.
        shift: What a value in the files is above its class: 1 under
            ``reduce_zero_label``, else 0.
        maps: Label maps that could be read.
        pixels: Class index -> pixels, all maps together.
        pictures: Class index -> maps that have it.
        problems: What is wrong, a line each.
        warnings: What is to be looked at, a line each.
    """

    title: str
    classes: tuple[str, ...]
    ignore_index: int
    shift: int = 0
    maps: int = 0
    pixels: Counter = field(default_factory=Counter)
    pictures: Counter = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def absent(self) -> list[str]:
        """Name the classes that no map has, in the order of the classes."""
        return [
            name
            for index, name in enumerate(self.classes)
            if not self.pixels[index]
        ]

    def summary(self) -> str:
        """Say what was read, in a line."""
        return f'{self.title}: {self.maps} label maps'

    def remarks(self) -> list[str]:
        """Name the classes that no map has, and what else is doubtful."""
        absent = self.absent()
        lines = [f'Warning: {line}' for line in self.warnings]
        if absent and self.maps:
            lines.append(
                f'Warning: No map has {", ".join(absent)}. It cannot be '
                'learnt, and no IoU of it is counted.'
            )
        return lines

    def table(self) -> Table:
        """Say how often each value occurs."""
        table = Table()
        for name in ('value', 'class', '% of pixels', 'maps'):
            table.add_column(name, justify='left' if 'c' in name else 'right')
        total = max(self.pixels.total(), 1)
        known = range(len(self.classes))
        for index in sorted({*known, *self.pixels, self.ignore_index}):
            value = index + self.shift
            if index in known:
                name = self.classes[index]
            elif index == self.ignore_index:
                name = '(ignored)'
                value = f'0, {index}' if self.shift else index
            else:
                name = Text('no class', style='red')
            table.add_row(
                str(value),
                name,
                f'{100 * self.pixels[index] / total:.3f}',
                str(self.pictures[index]),
            )
        return table


@dataclass
class InstanceReport:
    """What an annotation file in COCO's format holds.

    Attributes:
        path: The file.
        found: What :func:`~mmseg_attn.datasets.coco.check_coco` found.
        problems: Always empty: a file with problems is refused.
    """

    path: str
    found: CocoReport
    problems: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """Say what was read, in a line."""
        return (
            f'{self.path}: {self.found.images} pictures, '
            f'{self.found.instances.total()} instances'
        )

    def remarks(self) -> list[str]:
        """Say what may be meant so, a line each."""
        return [f'- {line}' for line in self.found.warnings()]

    def table(self) -> Table:
        """Say how often each category occurs."""
        table = Table('category')
        for name in ('instances', 'pictures'):
            table.add_column(name, justify='right')
        for name in self.found.categories:
            counts = self.found.instances[name], self.found.pictures[name]
            table.add_row(str(name), *map(str, counts))
        return table


def label_reports(cfg: Config, splits: Sequence[str]) -> Iterator[LabelReport]:
    """Read every picture and label map of a config and count the labels.

    They are loaded as for the model, by the loading steps of the datasets'
    own pipelines. A dataset that several splits share is read once.

    Args:
        cfg: Config of a segmentor. It is not changed.
        splits: Some of ``'train'``, ``'val'`` and ``'test'``; one that the
            config does not have is passed over.

    Yields:
        A report of each dataset.

    Raises:
        UserError: Folders are missing, or there is nothing to read.
    """
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    found: list[tuple[ConfigDict, list[str]]] = []
    for split in splits:
        loader = f'{split}_dataloader'
        check_paths(cfg, loader)
        check_class_lists(cfg, loader)
        for config in dataset_configs(cfg.get(loader)):
            config = _labels_only(config)
            for other, names in found:
                if other == config:
                    names.append(split)
                    break
            else:
                found.append((config, [split]))
    if not found:
        raise UserError(
            f'{cfg.filename} has no dataset for {" or ".join(splits)}: '
            'expected train_dataloader, val_dataloader or test_dataloader.'
        )
    for config, names in found:
        yield _check_dataset(cfg, config, names)


def _labels_only(config: ConfigDict) -> ConfigDict:
    """The dataset with nothing but the loading steps of its pipeline."""
    steps = [
        step
        for step in config.get('pipeline') or ()
        if str(step.get('type')).split('.')[-1].startswith('Load')
    ]
    if not any('Annotations' in str(step.type) for step in steps):
        steps.append(ConfigDict(type='LoadAnnotations'))
    config = ConfigDict({**config, 'pipeline': copy.deepcopy(steps)})
    use_own_loader(config)
    return config


def _build(config: ConfigDict) -> BaseDataset:
    try:
        with config_mistakes('a dataset'):
            return DATASETS.build(config)
    except UserError as error:
        if HostError.NO_SAMPLE.found_in(error):
            raise no_sample(config) from error
        raise


def _check_dataset(
    cfg: Config, config: ConfigDict, splits: list[str]
) -> LabelReport:
    head = decode_head(cfg)
    dataset = _build(config)
    classes = tuple(dataset.metainfo.get('classes') or ())
    report = LabelReport(
        title=f'{", ".join(splits)}: {type(dataset).__name__} '
        f'{config.get("data_root") or ""}'.rstrip(),
        classes=classes,
        ignore_index=head.get('ignore_index', 255),
        shift=int(bool(getattr(dataset, 'reduce_zero_label', False))),
    )
    outputs = head.get('num_classes', len(classes))
    if outputs != len(classes):
        report.problems.append(
            f'model.decode_head.num_classes is {outputs}, but the dataset '
            f'has {len(classes)} classes.'
        )
    if not len(dataset):
        report.problems.append('no label map was found.')
    check = CheckAnnotations(len(classes), report.ignore_index)
    survey = LabelSurvey(
        classes,
        report.ignore_index,
        changed=bool(report.shift or getattr(dataset, 'label_map', None)),
    )

    def count(index: int) -> tuple[Counter, str]:
        try:
            results = load_sample(dataset, index)
            label = results['gt_seg_map']
            values, counts = np.unique(label, return_counts=True)
            counts = dict(zip(values.tolist(), counts.tolist(), strict=True))
        except UserError as error:
            return Counter(), str(error)
        try:
            check(results)
        except UserError as error:
            # Of a colour picture the values say nothing.
            return Counter(counts if label.ndim == 2 else {}), str(error)
        return Counter(counts), ''

    # Decoding leaves Python's lock to others.
    with make_progress() as progress, ThreadPoolExecutor(_cores()) as pool:
        task = progress.add_task(report.title, total=len(dataset))
        found = pool.map(count, range(len(dataset)))
        for index, (counts, problem) in enumerate(found):
            report.maps += bool(counts)
            report.pixels.update(counts)
            report.pictures.update(counts.keys())
            survey.add(dataset.get_data_info(index)['seg_map_path'], counts)
            if problem:
                report.problems.append(problem)
            progress.advance(task)
    report.problems += survey.black_and_white()
    report.warnings += survey.two_kinds() + leftovers(dataset)
    return report


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == 'linux' else 4


def instance_reports(
    cfg: Config, splits: Sequence[str]
) -> Iterator[InstanceReport]:
    """Read the annotation files of a detector's config, each once.

    Args:
        cfg: Config of a detector. It is not changed.
        splits: Splits, as for :func:`label_reports`.

    Yields:
        A report of each file in COCO's format.

    Raises:
        UserError: A file cannot be used, or there is none.
    """
    found = {}
    for split in splits:
        check_paths(cfg, f'{split}_dataloader')
        check_class_lists(cfg, f'{split}_dataloader')
        found |= check_instances(cfg, f'{split}_dataloader')
    if not found:
        raise UserError(
            f"{cfg.filename} has no annotation file in COCO's format for "
            f'{" or ".join(splits)}.'
        )
    check_usable(found)
    for path, report in found.items():
        yield InstanceReport(path, report)


def refuse_pairs(cfg: Config, splits: Sequence[str]) -> Iterator[Report]:
    """Refuse a stereo network's config, whose data have no classes.

    Args:
        cfg: The config.
        splits: Not used.

    Raises:
        UserError: Always.
    """
    raise UserError(
        f'{cfg.filename} is of a stereo network: there are no classes to '
        'count.'
    )
