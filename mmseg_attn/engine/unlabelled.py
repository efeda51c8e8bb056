# Copyright (c) mmseg_attn contributors.
"""Segmentors' datasets without masks: none measures on them."""

from collections.abc import Sequence

from mmengine.config import Config, ConfigDict
from mmseg.evaluation import CityscapesMetric, IoUMetric
from mmseg.registry import METRICS

from ..errors import UserError
from .data_checks import dataset_configs, evaluator_configs

LOADING = ('LoadAnnotations', 'mmseg.LoadAnnotations')


def without_masks(cfg: Config, loader: str) -> bool:
    """Whether a dataset of a segmentor names pictures, but no masks.

    Args:
        cfg: The config.
        loader: Which of its dataloaders.
    """
    prefixes = [
        dataset.get('data_prefix') or {}
        for dataset in dataset_configs(cfg.get(loader))
    ]
    return any(
        'img_path' in prefix and prefix.get('seg_map_path') is None
        for prefix in prefixes
    )


def mask_savers(cfg: Config, name: str) -> list[ConfigDict]:
    """The evaluators that compare with masks, and can save predicted ones.

    Args:
        cfg: The config.
        name: Such as ``'test_evaluator'``.
    """
    return [
        item
        for item in evaluator_configs(cfg, name)
        if issubclass(_metric(item), (IoUMetric, CityscapesMetric))
    ]


def is_cityscapes(evaluator: ConfigDict) -> bool:
    """Whether it keeps what it saves only when told so."""
    return issubclass(_metric(evaluator), CityscapesMetric)


def _metric(evaluator: ConfigDict) -> type:
    kind = METRICS.get(str(evaluator.get('type')))
    return kind if isinstance(kind, type) else object


def check_labelled(cfg: Config, loader: str) -> None:
    """Refuse to train on or to measure with pictures that have no masks.

    Args:
        cfg: The config.
        loader: Which of its dataloaders.

    Raises:
        UserError: It says what to set.
    """
    if not without_masks(cfg, loader):
        return
    savers = mask_savers(cfg, loader.replace('dataloader', 'evaluator'))
    measures = any(not item.get('format_only') for item in savers)
    loads = any(
        _without_loading(dataset.get('pipeline') or ())
        != list(dataset.get('pipeline') or ())
        for dataset in dataset_configs(cfg.get(loader))
    )
    if measures or loads:
        hint = ', or save predictions without a metric: test --out '
        hint = f'{hint}FOLDER' if loader == 'test_dataloader' else ''
        raise UserError(
            f'data_prefix of {loader} names no seg_map_path, so that there '
            f'are no masks. Name their folder{hint}'
        )


def only_save(cfg: Config) -> None:
    """Let a test without masks load none and measure nothing.

    Args:
        cfg: The config of a segmentor. It is changed.
    """
    for dataset in dataset_configs(cfg.test_dataloader):
        dataset.pipeline = _without_loading(dataset.get('pipeline') or ())
    savers = mask_savers(cfg, 'test_evaluator')
    for evaluator in savers:
        evaluator.format_only = True
    cfg.test_evaluator = savers


def _without_loading(steps: Sequence) -> list:
    """A pipeline without the loading of masks, however nested."""
    kept = []
    for step in steps:
        if isinstance(step, (list, tuple)):
            inner = _without_loading(step)
            # No alternative at all would be no view at all.
            kept += [inner] if inner else []
        elif step.get('type') in LOADING:
            continue
        elif 'transforms' in step:
            inner = _without_loading(step['transforms'])
            kept.append(ConfigDict(step, transforms=inner))
        else:
            kept.append(step)
    return kept
