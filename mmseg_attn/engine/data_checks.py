# Copyright (c) mmseg_attn contributors.
"""Check the data that a config names before anything reads it."""

import filecmp
import os
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS

from ..datasets.class_info import check_class_info, check_palette
from ..datasets.coco import CocoReport, check_coco, check_usable
from ..datasets.text_lists import check_list
from ..errors import UserError
from .config_errors import config_mistakes

# Their loader is mmcv's.
OWN_LOADER = [
    scope + 'LoadImageFromFile' for scope in ('', 'mmcv.', 'mmseg.', 'mmdet.')
]
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def check_data(cfg: Config, loader: str) -> list[str]:
    """Check files, annotations and the evaluator of one dataloader.

    Args:
        cfg: The config.
        loader: Such as ``'train_dataloader'``.

    Returns:
        What is worth a warning, a line each.

    Raises:
        UserError: The data cannot be used.
    """
    check_paths(cfg, loader)
    check_class_lists(cfg, loader)
    reports = check_instances(cfg, loader)
    check_usable(reports)
    empty = not any(report.usable for report in reports.values())
    if reports and empty and loader == 'train_dataloader':
        raise UserError(f'{", ".join(reports)} has no annotation to train on.')
    if len(reports) == 1 and loader != 'train_dataloader':
        _check_evaluators(cfg, loader, *reports)
    return [
        f'{path}: {line}.'
        for path, report in reports.items()
        for line in report.warnings()
    ]


def check_paths(cfg: Config, loader: str) -> None:
    """Refuse a dataset whose folders or lists are not there, or no text.

    Args:
        cfg: The config.
        loader: Which of its dataloaders.

    Raises:
        UserError: One does not exist (remote ones are not looked for), or a
            list is not in UTF-8.
    """
    for dataset in dataset_configs(cfg.get(loader)):
        for name, path in _paths(dataset).items():
            if '://' in path:
                continue
            if os.path.exists(path):
                if name == 'ann_file':
                    check_list(path, loader)
                continue
            raise UserError(
                f'{name} of {loader} does not exist: {path} (data_root is '
                f'{dataset.get("data_root")!r}, the current folder '
                f'{os.getcwd()}). Put the data there or set the path in the '
                f'config or with --cfg-options {loader}.dataset.data_root=...'
            )


def check_class_lists(cfg: Config, loader: str) -> None:
    """Refuse class names and colours of datasets that cannot be used.

    Args:
        cfg: The config.
        loader: Which of its dataloaders.

    Raises:
        UserError: Names or colours are no lists of such, or datasets of one
            loader differ in their classes.
    """
    first = None
    datasets = list(dataset_configs(cfg.get(loader)))
    for dataset in datasets:
        meta = dataset.get('metainfo') or {}
        where = f'metainfo of {loader} ({dataset.get("type")})'
        classes = meta.get('classes')
        if os.path.isfile(str(classes)):
            check_list(classes, where)
        elif classes is not None:
            # Of a subset of the dataset's classes, mmseg takes the colours.
            check_class_info({'classes': classes}, where)
        palette = meta.get('palette')
        if palette:
            check_palette(palette, len(classes or palette), where)
        if len(datasets) > 1:
            found = _class_names(dataset)
            if first and found and first[1] != found:
                raise UserError(
                    f'the datasets of {loader} differ in their classes: '
                    f'{_described(*first)}, {_described(dataset, found)}. A '
                    'label must mean one class in all: give them one list of '
                    'classes in one order.'
                )
            first = first or (found and (dataset, found))


def _class_names(dataset: ConfigDict) -> list[str] | None:
    """The classes of a dataset, without its files; None where unknown."""
    with config_mistakes('a dataset'):
        try:
            built = DATASETS.build(
                {**dataset, 'pipeline': [], 'lazy_init': True}
            )
        except TypeError:  # one that takes no lazy_init
            return None
    classes = getattr(built, 'metainfo', {}).get('classes')
    return list(map(str, classes)) if classes else None


def _described(dataset: ConfigDict, classes: list[str]) -> str:
    place = dataset.get('data_root') or dataset.get('ann_file') or ''
    names = ', '.join(classes[:8]) + ', ...' * (len(classes) > 8)
    return f'{dataset.get("type")} {place} has {names}'


def check_instances(cfg: Config, loader: str) -> dict[str, CocoReport]:
    """Check the annotation files of datasets in COCO's format.

    Args:
        cfg: The config; where none is of COCO's there is nothing to check.
        loader: Which of its dataloaders.

    Returns:
        The report of each file in COCO's format on this machine.

    Raises:
        UserError: One cannot be used, or the classes are not in it.
    """
    reports = {}
    for dataset in dataset_configs(cfg.get(loader)):
        # Others have formats of their own.
        if dataset.get('type') not in ('CocoDataset', 'mmdet.CocoDataset'):
            continue
        paths = _paths(dataset)
        if not dataset.get('ann_file'):
            raise UserError(f'the dataset of {loader} has no ann_file.')
        meta = dataset.get('metainfo') or {}
        classes = meta.get('classes') or ()
        if isinstance(classes, str) and not os.path.isfile(classes):
            raise UserError(
                f'metainfo.classes of {loader} is the text {classes!r}: '
                f'expected a tuple, such as ({classes!r},).'
            )
        if not classes:
            with DATASETS.switch_scope_and_registry('mmdet') as registry:
                classes = registry.get('CocoDataset').METAINFO['classes']
        masks = any(
            step.get('with_mask') for step in dataset.get('pipeline') or ()
        )
        if '://' in paths['ann_file']:
            continue
        reports[paths['ann_file']] = check_coco(
            paths['ann_file'],
            paths.get('data_prefix.img'),
            classes=() if isinstance(classes, str) else classes,
            masks=masks,
            evaluated=loader != 'train_dataloader',
        )
    return reports


def _check_evaluators(cfg: Config, loader: str, path: str) -> None:
    """Refuse to compare with another annotation file than the dataset's."""
    name = loader.replace('dataloader', 'evaluator')
    evaluators = evaluator_configs(cfg, name)
    for other in (item.get('ann_file') for item in evaluators):
        if not other or '://' in other:
            continue
        there = os.path.isfile(other)
        if there and filecmp.cmp(other, path, shallow=False):
            continue
        raise UserError(
            f'{name}.ann_file is {other}, '
            + ('another file than' if there else 'which does not exist, not')
            + f' {path}, which {loader} reads. Set {name}.ann_file={path}'
        )


def evaluator_configs(cfg: Config, name: str) -> list[ConfigDict]:
    """List the evaluators of a test or validation, one or several.

    Args:
        cfg: The config.
        name: Such as ``'test_evaluator'``.
    """
    found = cfg.get(name) or []
    return [found] if isinstance(found, dict) else list(found)


def decode_head(cfg: Config) -> dict:
    """Find the decode head of a segmentor's config, the last of a cascade.

    Args:
        cfg: The config.

    Returns:
        Its config, empty where there is none.
    """
    head = (cfg.get('model') or {}).get('decode_head') or {}
    return head[-1] if isinstance(head, (list, tuple)) else head


def check_output_folder(cfg: Config, folder: str | Path) -> None:
    """Refuse to write results where the pictures or masks are.

    Args:
        cfg: The config.
        folder: Where results are to be written.

    Raises:
        UserError: A dataset reads from that folder.
    """
    target = Path(folder).resolve()
    # The names in training and validation may be the same.
    for dataset in dataset_configs([cfg.get(loader) for loader in LOADERS]):
        for path in _paths(dataset).values():
            source = Path(path).resolve()
            if target == source or source in target.parents:
                raise UserError(
                    f'{folder} is in the dataset folder {path}: results '
                    'there could replace pictures or masks. Name another.'
                )


def no_sample(config: object) -> UserError:
    """Say where datasets looked that found no sample.

    Args:
        config: The config of their dataloader.

    Returns:
        The error to be raised.
    """
    keys = ('data_root', 'data_prefix', 'ann_file', 'img_suffix')
    places = []
    for dataset in dataset_configs(config):
        parts = [f'{key}={dataset[key]!r}' for key in keys if key in dataset]
        places.append(f'{dataset.get("type")}({", ".join(parts)})')
    return UserError(
        f'no sample found by {"; ".join(places)}. Check the folders and '
        'lists, the class names in metainfo, and img_suffix (where it is not '
        'given, that of the dataset class).'
    )


def dataset_configs(config: object) -> Iterator[ConfigDict]:
    """Go through the datasets in a config, also those in wrappers.

    Args:
        config: The config of a dataloader, or many in a list.

    Yields:
        The config of each dataset that reads files.
    """
    if isinstance(config, dict):
        if 'data_prefix' in config or 'ann_file' in config:
            yield config
        for value in config.values():
            yield from dataset_configs(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from dataset_configs(value)


def _paths(dataset: ConfigDict) -> dict[str, str]:
    """The files and folders a dataset reads, as BaseDataset joins them."""
    parts = dict(dataset.get('data_prefix') or {})
    parts = {f'data_prefix.{key}': value for key, value in parts.items()}
    parts['ann_file'] = dataset.get('ann_file')
    root = dataset.get('data_root') or ''
    return {
        name: os.path.join(root, part)
        for name, part in parts.items()
        if isinstance(part, str) and os.path.join(root, part)
    }


def use_own_loader(config: object) -> None:
    """Load pictures with ours, which says what it cannot read.

    Args:
        config: Config of datasets or pipelines, which is changed.
    """
    if isinstance(config, (list, tuple)):
        for value in config:
            use_own_loader(value)
    elif isinstance(config, dict):
        if config.get('type') in OWN_LOADER:
            config['type'] = 'mmseg_attn.LoadPicture'
        for value in config.values():
            use_own_loader(value)


def add_file_checks(cfg: Config) -> None:
    """Put checks into the loading of pictures and of label maps.

    Args:
        cfg: The config, which is changed; in that of a segmentor a check
            stands behind each label map.
    """
    for key in (*LOADERS, 'tta_pipeline'):
        use_own_loader(cfg.get(key))
    head = decode_head(cfg)
    if not head:
        return
    check = dict(
        type='mmseg_attn.CheckAnnotations',
        num_classes=head.get('num_classes'),
        ignore_index=head.get('ignore_index', 255),
    )
    if check['num_classes'] is not None:
        for loader in LOADERS:
            _insert_after_loading(cfg.get(loader), check)


def _insert_after_loading(config: object, check: dict) -> None:
    """Put a transform behind every LoadAnnotations, however nested.

    One that is there, in a config that a runner wrote, is brought up to date.
    """
    if isinstance(config, dict):
        if str(config.get('type')).endswith('TestTimeAug'):
            return  # its lists are alternatives, not steps
        for value in config.values():
            _insert_after_loading(value, check)
    elif isinstance(config, list):
        types = [
            item.get('type') if isinstance(item, dict) else None
            for item in config
        ]
        for value in config:
            _insert_after_loading(value, check)
        if check['type'] in types:
            config[types.index(check['type'])].update(check)
        else:
            for place in reversed(range(len(config))):
                if types[place] in (
                    'LoadAnnotations',
                    'mmseg.LoadAnnotations',
                ):
                    config.insert(place + 1, ConfigDict(check))
