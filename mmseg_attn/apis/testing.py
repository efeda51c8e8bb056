# Copyright (c) mmseg_attn contributors.
"""Change a config so that its test draws, saves, or sees more views."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.logging import print_log

from ..engine.data_checks import check_output_folder, evaluator_configs
from ..engine.unlabelled import (
    is_cityscapes,
    mask_savers,
    only_save,
    without_masks,
)
from ..errors import UserError
from ..files import gathered
from ..inference.jobs import PICTURES
from .test_pipelines import test_dataset, tta_model


def draw_segmentation(cfg: Config, folder: str | None) -> None:
    """Let a test draw class maps or disparities.

    Args:
        cfg: Config of a segmentor or stereo network. It is changed.
        folder: Where the pictures go. None leaves it to the visualizer.

    Raises:
        UserError: The config has no hook that draws, or a dataset reads from
            the folder.
    """
    _switch_on_drawing(cfg, folder)
    if folder:
        cfg.visualizer.save_dir = folder


def draw_clips(cfg: Config, folder: str | None) -> None:
    """Let a test draw the labelled frames of clips.

    Args:
        cfg: Config of a segmentor for clips. It is changed.
        folder: Where the pictures go, as for :func:`draw_segmentation`.

    Raises:
        UserError: As of :func:`draw_segmentation`.
    """
    draw_segmentation(cfg, folder)
    hook = cfg.default_hooks.visualization
    hook.type = 'mmseg_attn.ClipVisualizationHook'


def draw_detections(cfg: Config, folder: str | None) -> None:
    """Let a test draw boxes and masks.

    Args:
        cfg: Config of a detector. It is changed.
        folder: Where the pictures go, as for :func:`draw_segmentation`.

    Raises:
        UserError: As of :func:`draw_segmentation`.
    """
    hook = _switch_on_drawing(cfg, folder)
    if folder:
        hook.test_out_dir = os.path.abspath(folder)


def _switch_on_drawing(cfg: Config, folder: str | None) -> ConfigDict:
    hook = cfg.get('default_hooks', {}).get('visualization')
    if not hook:
        raise UserError(
            '--show and --show-dir need a visualization hook: default_hooks='
            "dict(visualization=dict(type='SegVisualizationHook')), for "
            "MMDetection type='DetVisualizationHook'."
        )
    if folder:
        check_output_folder(cfg, folder)
    hook.update(draw=True, interval=1)
    return hook


def use_windows(
    cfg: Config, crop: tuple[int, int], stride: tuple[int, int]
) -> None:
    """Let a test predict in overlapping windows.

    Args:
        cfg: Config of a segmentor. It is changed.
        crop: Height and width of a window, in pixels.
        stride: Steps from one to the next, likewise.

    Raises:
        UserError: The windows leave gaps.
    """
    if stride[0] > crop[0] or stride[1] > crop[1]:
        raise UserError(
            f'--slide: a stride of {stride} leaves gaps between windows of '
            f'{crop}: expected one no larger.'
        )
    cfg.model.test_cfg = ConfigDict(
        mode='slide', crop_size=crop, stride=stride
    )


def merge_views(cfg: Config, add_views: Callable[[Config], None]) -> None:
    """Let a test merge what is predicted of several views of a picture.

    Args:
        cfg: A config. It is changed.
        add_views: Gives it ``tta_model`` and ``tta_pipeline`` where it has
            none, as the functions of :mod:`.test_pipelines` do.

    Raises:
        UserError: There is no such thing for the model.
    """
    add_views(cfg)
    test_dataset(cfg).pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**tta_model(cfg), module=cfg.model)


@contextmanager
def saved_masks(cfg: Config, folder: str) -> Iterator[None]:
    """Let a test save class maps, all of them or none.

    Where the test set has no masks nothing is measured.

    Args:
        cfg: Config of a segmentor. It is changed.
        folder: Where the masks go.

    Yields:
        Nothing, while the test runs.

    Raises:
        UserError: No evaluator of the test can save masks, a dataset reads
            from the folder, or it has the name of a picture.
    """
    if Path(folder).suffix.lower() in PICTURES:
        raise UserError(f'--out {folder} must be a folder, not a file.')
    check_output_folder(cfg, folder)
    savers = mask_savers(cfg, 'test_evaluator')
    if not savers:
        evaluators = evaluator_configs(cfg, 'test_evaluator')
        raise UserError(
            '--out needs a test_evaluator that can save masks, such as '
            f'IoUMetric, got {", ".join(item.type for item in evaluators)}.'
        )
    if without_masks(cfg, 'test_dataloader'):
        only_save(cfg)
        note = 'the test set has no masks: predictions are saved, no metric.'
        print_log(note, 'current', logging.WARNING)
    with gathered(folder, is_main_process) as partial:
        for evaluator in savers:
            evaluator.output_dir = str(partial)
            if is_cityscapes(evaluator):
                evaluator.keep_results = True
        yield


@contextmanager
def saved_detections(cfg: Config, path: str) -> Iterator[None]:
    """Let a test save detections.

    Args:
        cfg: Config of a detector. It is changed.
        path: File to write, ``.pkl``.

    Yields:
        Nothing, while the test runs.

    Raises:
        UserError: The name ends otherwise.
    """
    if not path.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out needs a .pkl file for detections, got {path}.')
    with gathered(os.path.dirname(path) or '.', is_main_process) as partial:
        target = str(partial / os.path.basename(path))
        saver = dict(type='mmdet.DumpDetResults', out_file_path=target)
        earlier = evaluator_configs(cfg, 'test_evaluator')
        cfg.test_evaluator = [*earlier, ConfigDict(saver)]
        yield
