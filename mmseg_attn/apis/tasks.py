# Copyright (c) mmseg_attn contributors.
"""What a task is, said once: how its models are run, shown and checked."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from ..errors import UserError
from ..inference.outputs import DisparityOutput, MaskOutput, Output
from ..models.segmentors import ClipEncoderDecoder
from ..models.stereo import PSMNet
from . import reports, testing
from .clip_segmenter import ClipSegmenter
from .outputs import InstanceOutput
from .predictors import Detector, Predictor, Segmenter, StereoMatcher
from .test_pipelines import add_clip_views


@dataclass(frozen=True)
class Task:
    """What models of one kind do.

    What a config needs to be installed, the engine knows by its scope
    (:func:`mmseg_attn.hosts.missing_for`), and what its data need to train,
    by the types of its datasets (:mod:`mmseg_attn.engine.data_checks`).

    Attributes:
        title: What a model of this task is called.
        predictor: The class that runs it.
        output: The class that draws and saves what it predicts.
        check_data: Reads what the datasets of a config's splits are labelled
            with and yields a report of each.
        draw_tests: Changes a config so that its test draws pictures.
        add_views: Gives a config what is needed to average over flips and
            scales, or says why there is no such thing.
        save_tests: Changes a config so that its test, run within, saves
            predictions: all of them or none.
        has_classes: Whether it predicts classes.
        slides: Whether it can predict in overlapping windows.
        takes_pairs: Whether its input is a pair of pictures.
        takes_clips: Whether its input is a picture with those around it.
    """

    title: str
    predictor: type[Predictor]
    output: type[Output]
    check_data: Callable[[Config, Sequence[str]], Iterator[reports.Report]]
    draw_tests: Callable[[Config, str | None], None]
    add_views: Callable[[Config], None]
    save_tests: Callable[[Config, str], AbstractContextManager]
    has_classes: bool = True
    slides: bool = False
    takes_pairs: bool = False
    takes_clips: bool = False


SEGMENTOR = Task(
    title='segmentor',
    predictor=Segmenter,
    output=MaskOutput,
    check_data=reports.label_reports,
    draw_tests=testing.draw_segmentation,
    add_views=Segmenter.add_views,
    save_tests=testing.saved_masks,
    slides=True,
)
CLIPS = replace(
    SEGMENTOR,
    title='segmentor for clips',
    predictor=ClipSegmenter,
    draw_tests=testing.draw_clips,
    add_views=add_clip_views,
    takes_clips=True,
)
DETECTOR = Task(
    title='detector',
    predictor=Detector,
    output=InstanceOutput,
    check_data=reports.instance_reports,
    draw_tests=testing.draw_detections,
    add_views=Detector.add_views,
    save_tests=testing.saved_detections,
)
STEREO = Task(
    title='stereo network',
    predictor=StereoMatcher,
    output=DisparityOutput,
    check_data=reports.refuse_pairs,
    draw_tests=testing.draw_segmentation,
    add_views=StereoMatcher.add_views,
    save_tests=testing.saved_masks,
    has_classes=False,
    takes_pairs=True,
)
# What is neither is a detector where the config's scope is MMDetection's,
# else a segmentor.
BY_MODEL = {ClipEncoderDecoder: CLIPS, PSMNet: STEREO}


def task_of(config: Config) -> Task:
    """Tell the task of a config's model.

    Args:
        config: The config.

    Returns:
        By the class of its model, else by its ``default_scope``.
    """
    if config.get('default_scope') == 'mmdet':
        return DETECTOR
    model = config.get('model')
    name = kind = model.get('type') if isinstance(model, dict) else None
    if isinstance(name, str):
        with MODELS.switch_scope_and_registry('mmseg_attn') as registry:
            kind = registry.get(name)
    for model, task in BY_MODEL.items():
        if isinstance(kind, type) and issubclass(kind, model):
            return task
    return SEGMENTOR


def check_task(config: Config, *tasks: Task) -> None:
    """Refuse a model in what is only for others.

    Args:
        config: The config.
        *tasks: What may pass.

    Raises:
        UserError: It is of another task.
    """
    found = task_of(config)
    if found not in tasks:
        expected = ' or '.join(f'a {task.title}' for task in tasks)
        raise UserError(
            f'{config.filename} is of a {found.title}, expected {expected}.'
        )


def check_model(model: nn.Module) -> None:
    """Refuse what is no model with its config.

    Args:
        model: What was given for one.

    Raises:
        UserError: It is not from :func:`~mmseg_attn.apis.load_model`.
    """
    if not isinstance(getattr(model, 'cfg', None), Config):
        raise UserError(
            f'got a {type(model).__name__}, expected a model from load_model.'
        )


def make_predictor(
    model: nn.Module, tta: bool = False, depth: int | None = None
) -> Predictor:
    """Choose the class that runs a model.

    Args:
        model: As from :func:`~mmseg_attn.apis.load_model`.
        tta: Average over the flips and scales of the config's
            ``tta_pipeline``.
        depth: Bits that 16-bit pictures use, as of
            :func:`~mmseg_attn.pictures.read_picture`; None: as the
            config says.

    Returns:
        A predictor: ``prepare`` reads an input, a call predicts a batch, and
        ``stream`` predicts the frames of a video.

    Raises:
        UserError: The config has no pipeline for this.
    """
    check_model(model)
    predictor = task_of(model.cfg).predictor(model, tta)
    if depth is not None:
        predictor.set_depth(depth)
    return predictor
