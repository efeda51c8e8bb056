# Copyright (c) mmseg_attn contributors.
"""Say in a card what a model needs to be run without its config."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from .. import __version__
from ..apis.clip_segmenter import clip_of
from ..apis.tasks import CLIPS, STEREO, task_of
from ..apis.test_pipelines import test_pipeline
from ..apis.window_network import divisor_of, threshold_of
from ..errors import UserError
from ..hosts import version_of
from ..inference.files import sha256
from ..models.stereo.psmnet import DIVISOR
from ..runtime import card
from .network import is_red_first

# Distributions that write files, or run them where they are compared.
TOOLS = ('onnxscript', 'onnxruntime', 'openvino')
# Steps of a test pipeline that change no pixel.
LOADING = ('LoadImageFromFile', 'LoadPicture', 'LoadAnnotations')
LOADING += ('LoadClip', 'LoadStereoPair', 'LoadDisparity')
PACKING = ('PackSegInputs', 'PackClipInputs', 'PackStereoInputs')


def describe(
    model: nn.Module,
    checkpoint: str | Path,
    *,
    output: str,
    resized: bool,
    fixed_size: tuple[int, int] | None,
    precision: str,
) -> card.Card:
    """Write the card of a model.

    Args:
        model: As from :func:`~mmseg_attn.apis.load_model`.
        checkpoint: Its weights.
        output: What the network gives.
        resized: Whether that has the size of the picture.
        fixed_size: Height and width that it is bound to.
        precision: ``'fp32'``, ``'fp16'`` or ``'int8'``.

    Returns:
        The card.

    Raises:
        UserError: Pictures are prepared in a way that a card cannot tell.
    """
    cfg, prepare = model.cfg, model.data_preprocessor
    task, normal = task_of(cfg), prepare._enable_normalize
    own = _of_pairs(model) if task is STEREO else _of_segmentor(model)
    if task is CLIPS:
        clip = clip_of(model)
        own |= dict(
            task=card.CLIPS,
            frames=clip.frames,
            label_frame=clip.label_frame,
            frame_step=clip.step,
        )
    # Means are of the order that the network sees.
    step = 1 if is_red_first(prepare) else -1
    return card.Card(
        **own,
        classes=tuple(map(str, model.dataset_meta['classes'])),
        palette=tuple(map(tuple, model.dataset_meta['palette'])),
        output=output,
        resized=resized,
        fixed_size=fixed_size,
        mean=_values(prepare.mean, step) if normal else None,
        std=_values(prepare.std, step) if normal else None,
        precision=precision,
        names={
            'config': Path(cfg.filename or 'config.py').name,
            'config_sha256': sha256(cfg.pretty_text.encode()),
            'checkpoint': Path(str(checkpoint)).name,
            'checkpoint_sha256': sha256(Path(checkpoint).read_bytes()),
        },
        versions={
            'mmseg_attn': __version__,
            'torch': torch.__version__,
            **{name: version_of(name) or '' for name in TOOLS},
        },
    )


def _of_segmentor(model: nn.Module) -> dict:
    slide = model.test_cfg.get('mode', 'whole') == 'slide'
    crop, stride = map(model.test_cfg.get, ('crop_size', 'stride'))
    scale, keep_ratio = scale_of(model.cfg)
    return dict(
        align_corners=bool(model.align_corners),
        threshold=threshold_of(model),
        scale=scale,
        keep_ratio=keep_ratio,
        divisor=divisor_of(model),
        window=tuple(crop) if slide else None,
        stride=tuple(stride) if slide else None,
    )


def _of_pairs(model: nn.Module) -> dict:
    scale, _ = scale_of(model.cfg)
    if scale:
        raise UserError(
            'the test pipeline resizes pairs, after which disparities would '
            'be those of other pictures: take Resize out of it.'
        )
    return dict(
        task=card.STEREO,
        frames=2,
        max_disparity=model.max_disparity,
        divisor=DIVISOR,
    )


def _values(values: torch.Tensor, step: int) -> tuple[float, ...]:
    return tuple(values.flatten().tolist()[::step])


def scale_of(cfg: Config) -> tuple[tuple[int, int] | None, bool]:
    """Find the one size rule of a test pipeline.

    Args:
        cfg: The config.

    Returns:
        The scale, None where pictures are left as they are, and whether it
        keeps their ratio of height and width.

    Raises:
        UserError: Pictures are prepared in a way that a card cannot tell.
    """
    scale, keep_ratio = None, True
    for step in _steps(test_pipeline(cfg)):
        name = str(step['type']).rpartition('.')[2]
        if name in (*LOADING, *PACKING):
            continue
        plain = set(step) <= {'type', 'scale', 'keep_ratio', 'interpolation'}
        linear = step.get('interpolation', 'bilinear') == 'bilinear'
        if name == 'Resize' and plain and linear and scale is None:
            keep_ratio = bool(step.get('keep_ratio', False))
            scale = step['scale']
            scale = (scale,) * 2 if isinstance(scale, int) else tuple(scale)
            continue
        raise UserError(
            f'the test pipeline has {step}, which an exported file cannot '
            'tell: expected loading, one Resize with a scale, and '
            'PackSegInputs.'
        )
    return scale, keep_ratio


def _steps(pipeline: Iterable[dict]) -> Iterator[dict]:
    """Steps, and in place of those of clips what these do to each frame."""
    for step in pipeline:
        if str(step['type']).rpartition('.')[2] == 'ClipTransform':
            yield from step['transforms']
        else:
            yield step
