# Copyright (c) mmseg_attn contributors.
"""Models with their trained weights."""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import nn

from ..configs import load_config, training_crop
from ..engine.checkpoint import load_weights
from ..engine.config_errors import (
    check_installed,
    check_weight_files,
    config_mistakes,
)
from ..errors import UserError
from ..progress import quiet_hosts
from ..visualization.overlay import make_palette
from .tasks import task_of
from .test_pipelines import test_dataset
from .zoo import chosen_weights


def load_model(
    config: str | Path | Config,
    checkpoint: str | Path | None = 'zoo',
    *,
    device: str | None = None,
    classes: Sequence[str] | dict | None = None,
    slide: int | tuple[int, int] | None = None,
) -> nn.Module:
    """Build a segmentor or detector with its trained weights.

    Nothing is downloaded for the backbone, since the checkpoint replaces it.

    Args:
        config: Path or name of a config (see
            :func:`~mmseg_attn.apis.find_config`), or a loaded one.
        checkpoint: Path of the weights; ``'zoo'`` takes those of the model of
            the zoo that ``config`` names; None leaves them random.
        device: Such as ``'cpu'`` or ``'cuda:1'``; by default the best there
            is.
        classes: Names of the classes; or a dictionary of these, ``classes``,
            and their colours, ``palette``, as a ``dataset.json`` has it. By
            default those of the checkpoint, else those of the config's
            dataset.
        slide: Predict in overlapping windows of this size (height, width) in
            pixels; 0 takes the size from the config. None keeps the config's
            way. Of segmentors only.

    Returns:
        The model in eval mode, with ``cfg`` and ``dataset_meta`` (classes and
        palette) set.

    Raises:
        UserError: If there is no such config or checkpoint, if they do not
            belong together, or if a value does not fit.
    """
    if isinstance(classes, str):
        raise UserError(
            f'classes is the text {classes!r}, expected a list of names.'
        )
    checkpoint = chosen_weights(config, checkpoint)
    config = copy.deepcopy(load_config(config))
    device = _check_device(device or get_device())
    if not isinstance(config.get('model'), dict):
        raise UserError(
            f'{config.filename} has no `model`; expected the config of a '
            'segmentor, that which its checkpoint was trained with.'
        )
    check_installed(config)
    check_weight_files(config.model)
    _drop_pretrained(config.model)
    config.model.pop('auxiliary_head', None)  # only for training
    init_default_scope(config.get('default_scope', 'mmseg'))
    with config_mistakes('the model'), quiet_hosts():
        model = MODELS.build(config.model)
    task = task_of(config)
    if _outputs(model) is None and task.has_classes:
        raise UserError(
            f'{config.filename} builds a {type(model).__name__}; expected a '
            'segmentor such as EncoderDecoder, or with default_scope '
            "'mmdet' a detector such as MaskRCNN."
        )
    if slide is not None and not task.slides:
        raise UserError('only segmentors predict in windows (--slide).')
    if classes and not task.has_classes:
        raise UserError(f'a {task.title} has no classes (--classes).')
    saved = {}
    if checkpoint is not None:
        saved = load_weights(model, checkpoint)
    model = revert_sync_batchnorm(model)  # a CPU has no synchronised one
    model.cfg = config
    model.dataset_meta = dict(classes=(), palette=[])
    if task.has_classes:
        meta = saved.get('meta', {})
        model.dataset_meta = _dataset_meta(model, meta, classes)
    if slide is not None:
        model.test_cfg = _sliding(config, slide)
    return model.to(device).eval()


def _check_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f'Device {name!r} cannot be used here ({reason}); try cpu.'
        ) from error
    return device


def _drop_pretrained(config: ConfigDict) -> None:
    """Switch off ``pretrained``: some backbones download when built."""
    for key, value in config.items():
        if key == 'pretrained':
            config[key] = None
        elif isinstance(value, dict):
            _drop_pretrained(value)


def _outputs(model: nn.Module) -> int | None:
    """Number of classes of a segmentor's or a detector's last head."""
    head = getattr(model, 'decode_head', None) or getattr(
        getattr(model, 'roi_head', model), 'bbox_head', None
    )
    if isinstance(head, nn.ModuleList):  # a cascade
        head = head[-1]
    return getattr(head, 'num_classes', None)


def _dataset_meta(
    model: nn.Module, saved: dict, classes: Sequence[str] | dict | None
) -> dict:
    outputs = _outputs(model)
    given = classes if isinstance(classes, dict) else dict(classes=classes)
    classes = given.get('classes')
    if classes and len(classes) != outputs:
        raise UserError(
            f'Got {len(classes)} class names for a model of {outputs} classes.'
        )
    dataset = test_dataset(model.cfg)
    kind = None
    if 'type' in dataset:
        with DATASETS.switch_scope_and_registry(None) as registry:
            kind = registry.get(dataset.type)
    sources = [
        saved.get('dataset_meta') or {},
        dict(classes=saved.get('CLASSES'), palette=saved.get('PALETTE')),
        {**getattr(kind, 'METAINFO', {}), **dataset.get('metainfo', {})},
        dict(classes=[f'class {i}' for i in range(outputs)]),
    ]
    for meta in sources:
        names, palette = meta.get('classes'), meta.get('palette')
        if names is not None and len(names) == outputs:
            break
    names = classes or names  # other names, the same colours
    if given.get('palette'):
        palette = given['palette']
        if len(palette) != outputs:
            raise UserError(
                f'Got {len(palette)} colours for {outputs} classes.'
            )
    if palette is None or len(palette) != len(names):
        palette = make_palette(len(names))
    palette = [[int(value) for value in colour] for colour in palette]
    return dict(classes=tuple(names), palette=palette)


def _sliding(cfg: Config, size: int | tuple[int, int]) -> ConfigDict:
    test_cfg = cfg.model.get('test_cfg', {})
    crop = size or test_cfg.get('crop_size') or training_crop(cfg)
    if not crop:
        raise UserError(
            'The config names no window size (`model.test_cfg.crop_size`); '
            'give one.'
        )
    sides = tuple(crop) if isinstance(crop, (tuple, list)) else (crop, crop)
    whole = [type(side) is int and side > 0 for side in sides]
    if len(sides) != 2 or not all(whole):
        raise UserError(
            f'slide (--slide) is {size!r}: expected the side of a window, or '
            'its height and width, in pixels.'
        )
    crop = sides
    stride = tuple(max(1, side * 2 // 3) for side in crop)
    return ConfigDict(mode='slide', crop_size=crop, stride=stride)
