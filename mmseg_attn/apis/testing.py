# Copyright (c) mmseg_attn contributors.
"""Change a config so that its test draws, saves, or sees more views."""

import copy
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

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
from .predictors import test_dataset, tta_model

# Scales of MMSegmentation's own test-time augmentation.
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


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


def add_segmentation_tta(cfg: Config) -> None:
    """Let a test average over six scales and a flip.

    Args:
        cfg: Config of a segmentor. Its own ``tta_model`` and ``tta_pipeline``
            are taken where it has them. It is changed.

    Raises:
        UserError: There is no ``tta_pipeline``, and the test pipeline has no
            Resize to make one from.
    """
    cfg.setdefault('tta_model', ConfigDict(type='SegTTAModel'))
    if 'tta_pipeline' not in cfg:
        head, resize, tail = _around_resize(cfg)
        sizes = [_scaled(resize, ratio) for ratio in SCALES]
        flips = _flips(direction='horizontal')
        steps = [sizes, flips, *([step] for step in tail)]
        cfg.tta_pipeline = [*head, dict(type='TestTimeAug', transforms=steps)]
    _wrap(cfg)


def add_detection_tta(cfg: Config) -> None:
    """Let a test merge the detections in a picture and its mirror image.

    Args:
        cfg: Config of a detector, see :func:`add_segmentation_tta`.

    Raises:
        UserError: As of :func:`add_segmentation_tta`.
    """
    nms = dict(type='nms', iou_threshold=0.5)
    merged = dict(nms=nms, max_per_img=100)
    cfg.setdefault('tta_model', ConfigDict(type='DetTTAModel', tta_cfg=merged))
    if 'tta_pipeline' not in cfg:
        # Boxes are merged by score, so that one scale is the usual choice.
        head, resize, (*tail, pack) = _around_resize(cfg)
        keys = pack.get(
            'meta_keys',
            ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
        )
        pack = {**pack, 'meta_keys': (*keys, 'flip', 'flip_direction')}
        steps = [[resize], _flips(), *([step] for step in tail), [pack]]
        cfg.tta_pipeline = [*head, dict(type='TestTimeAug', transforms=steps)]
    _wrap(cfg)


def _wrap(cfg: Config) -> None:
    test_dataset(cfg).pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**tta_model(cfg), module=cfg.model)


def _flips(**options: str) -> list[dict]:
    return [dict(type='RandomFlip', prob=p, **options) for p in (0.0, 1.0)]


def _around_resize(cfg: Config) -> tuple[list, ConfigDict, list]:
    """Steps of the test pipeline before Resize, itself, and behind it."""
    pipeline = test_dataset(cfg).pipeline
    types = [step['type'].split('.')[-1] for step in pipeline]
    if 'Resize' not in types:
        raise UserError(
            '--tta needs tta_pipeline in the config: one could not be made '
            'from a test pipeline without Resize.'
        )
    place = types.index('Resize')
    return pipeline[:place], pipeline[place], pipeline[place + 1 :]


def _scaled(resize: ConfigDict, ratio: float) -> ConfigDict:
    resize = copy.deepcopy(resize)
    if resize.get('scale') is not None:
        scale = resize['scale']
        sides = [scale] * 2 if isinstance(scale, int) else scale
        resize['scale'] = tuple(round(side * ratio) for side in sides)
    else:
        factor = resize.get('scale_factor', 1.0)
        sides = [factor] * 2 if isinstance(factor, (int, float)) else factor
        resize['scale_factor'] = tuple(side * ratio for side in sides)
    return resize


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
        UserError: No evaluator of the test can save masks, or a dataset
            reads from the folder.
    """
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
