# Copyright (c) mmseg_attn contributors.
"""Say in a card what a model needs to be run without its config."""

from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from .. import __version__
from ..apis.test_pipelines import test_pipeline
from ..apis.window_network import divisor_of, threshold_of
from ..errors import UserError
from ..hosts import version_of
from ..inference.files import sha256
from ..runtime.card import Card

# Steps of a test pipeline that change no pixel.
LOADING = ('LoadImageFromFile', 'LoadPicture', 'LoadAnnotations')
PACKING = ('PackSegInputs',)


def describe(
    model: nn.Module,
    checkpoint: str | Path,
    *,
    output: str,
    resized: bool,
    fixed_size: tuple[int, int] | None,
    precision: str,
) -> Card:
    """Write the card of a segmentor.

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
    slide = model.test_cfg.get('mode', 'whole') == 'slide'
    crop, stride = (
        model.test_cfg.get('crop_size'),
        model.test_cfg.get('stride'),
    )
    normal = prepare._enable_normalize
    scale, keep_ratio = _scale(cfg)
    # Means are of the order that the network sees.
    step = 1 if prepare._channel_conversion else -1
    return Card(
        classes=tuple(map(str, model.dataset_meta['classes'])),
        palette=tuple(map(tuple, model.dataset_meta['palette'])),
        output=output,
        resized=resized,
        align_corners=bool(model.align_corners),
        threshold=threshold_of(model),
        scale=scale,
        keep_ratio=keep_ratio,
        divisor=divisor_of(model),
        window=tuple(crop) if slide else None,
        stride=tuple(stride) if slide else None,
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
            'onnxscript': version_of('onnxscript') or '',
        },
    )


def _values(values: torch.Tensor, step: int) -> tuple[float, ...]:
    return tuple(values.flatten().tolist()[::step])


def _scale(cfg: Config) -> tuple[tuple[int, int] | None, bool]:
    scale, keep_ratio = None, True
    for step in test_pipeline(cfg):
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
