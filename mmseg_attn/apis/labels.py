# Copyright (c) mmseg_attn contributors.
"""``python -m mmseg_attn labels``: what the labels of a config hold."""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.registry import DATASETS, init_default_scope
from rich.console import Console
from rich.table import Table

from ..configs import find_config, is_detector, is_stereo
from ..errors import UserError
from ..progress import make_progress, quiet_hosts

with quiet_hosts():
    from ..datasets import CheckAnnotations
    from ..engine.data_checks import (
        check_instances,
        check_paths,
        dataset_configs,
    )
    from ..engine.samples import load_sample

SPLITS = ('train', 'val', 'test')
# Problems that are printed in full.
SHOWN = 20


@dataclass
class LabelReport:
    """What the label maps of one dataset hold.

    Attributes:
        title (str): The splits that read the dataset, its class and folder.
        classes (tuple[str, ...]): Names of the dataset's classes.
        ignore_index (int): The label of pixels that count for nothing.
        shift (int): What a value in the files is above its class: 1 under
            ``reduce_zero_label``, else 0.
        maps (int): Label maps that could be read.
        pixels (Counter): Class index -> pixels, all maps together.
        pictures (Counter): Class index -> maps that have it.
        problems (list[str]): What is wrong, a line each.
    """

    title: str
    classes: tuple[str, ...]
    ignore_index: int
    shift: int = 0
    maps: int = 0
    pixels: Counter = field(default_factory=Counter)
    pictures: Counter = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def absent(self) -> list[str]:
        """Names of the classes that no map has.

        Returns:
            list[str]: In the order of the classes.
        """
        return [
            name
            for index, name in enumerate(self.classes)
            if not self.pixels[index]
        ]

    def table(self) -> Table:
        """Say how often each value occurs.

        Returns:
            Table: To be printed.
        """
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
                name = '[red]no class[/red]'
            table.add_row(
                str(value),
                name,
                f'{100 * self.pixels[index] / total:.3f}',
                str(self.pictures[index]),
            )
        return table


def check_labels(
    cfg: Config, splits: tuple[str, ...] = SPLITS
) -> Iterator[LabelReport]:
    """Read every picture and label map of a config and count the labels.

    They are loaded as for the model, by the loading steps of the datasets'
    own pipelines. A dataset that several splits share is read once.

    Args:
        cfg (Config): The config, which is not changed.
        splits (tuple[str, ...]): Of ``'train'``, ``'val'`` and ``'test'``;
            one that the config does not have is passed over.

    Yields:
        LabelReport: Of each dataset.

    Raises:
        UserError: Folders are missing, or there is nothing to read.
    """
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    found: list[tuple[ConfigDict, list[str]]] = []
    for split in splits:
        loader = f'{split}_dataloader'
        check_paths(cfg, loader)
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
    return ConfigDict({**config, 'pipeline': steps})


def _check_dataset(
    cfg: Config, config: ConfigDict, splits: list[str]
) -> LabelReport:
    head = (cfg.get('model') or {}).get('decode_head') or {}
    head = head[-1] if isinstance(head, (list, tuple)) else head
    dataset = DATASETS.build(config)
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
        for counts, problem in pool.map(count, range(len(dataset))):
            report.maps += bool(counts)
            report.pixels.update(counts)
            report.pictures.update(counts.keys())
            if problem:
                report.problems.append(problem)
            progress.advance(task)
    return report


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == 'linux' else 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('config', help='config file, or name of a packaged config')
    add(
        '--split',
        nargs='+',
        choices=SPLITS,
        default=SPLITS,
        help='which dataloaders (default: all that the config has)',
    )
    add(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='change settings of the config, as key=value',
    )


def main(args: argparse.Namespace) -> int:
    console = Console(width=None if sys.stdout.isatty() else 110)
    wrong = 0
    try:
        with quiet_hosts():
            cfg = Config.fromfile(find_config(args.config))
            cfg.merge_from_dict(args.cfg_options or {})
            if is_stereo(cfg):
                raise UserError(
                    f'{args.config} is of a stereo network: there are no '
                    'classes to count.'
                )
            if is_detector(cfg):
                _print_instances(cfg, args.split, console)
                return 0
            for report in check_labels(cfg, tuple(args.split)):
                _print(report, console)
                wrong += len(report.problems)
    except (UserError, OSError) as error:
        raise SystemExit(f'Error: {error}') from error
    except KeyboardInterrupt:
        return 130
    return 1 if wrong else 0


def _print(report: LabelReport, console: Console) -> None:
    console.print(
        f'{report.title}: {report.maps} label maps',
        highlight=False,
        markup=False,
    )
    console.print(report.table())
    absent = report.absent()
    if absent and report.maps:
        console.print(
            f'No map has {", ".join(absent)}.', highlight=False, markup=False
        )
    for problem in report.problems[:SHOWN]:
        console.print(f'- {problem}', highlight=False, markup=False)
    if len(report.problems) > SHOWN:
        console.print(f'- and {len(report.problems) - SHOWN} more')
    found = f'{len(report.problems)} problems' if report.problems else 'Good'
    console.print(f'{found}.\n', highlight=False)


def _print_instances(
    cfg: Config, splits: Sequence[str], console: Console
) -> None:
    """Tables of a detector's annotation files, each once."""
    reports = {}
    for split in splits:
        check_paths(cfg, f'{split}_dataloader')
        reports |= check_instances(cfg, f'{split}_dataloader')
    if not reports:
        raise UserError(
            f"{cfg.filename} has no annotation file in COCO's format for "
            f'{" or ".join(splits)}.'
        )
    for path, report in reports.items():
        console.print(
            f'{path}: {report.images} pictures, '
            f'{report.instances.total()} instances',
            highlight=False,
            markup=False,
        )
        table = Table('category')
        for name in ('instances', 'pictures'):
            table.add_column(name, justify='right')
        for name in report.categories:
            counts = report.instances[name], report.pictures[name]
            table.add_row(str(name), *map(str, counts))
        console.print(table)
        for line in report.warnings():
            console.print(f'- {line}', highlight=False, markup=False)
