# Copyright (c) mmseg_attn contributors.
"""Export a model: trace, write, check, and only then leave the file."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from mmengine.config import Config
from mmseg.models.backbones.swin import ShiftWindowMSA
from torch import nn

from ..apis import load_model
from ..apis.tasks import CLIPS, SEGMENTOR, STEREO, task_of
from ..apis.zoo import chosen_weights
from ..configs import load_config, training_crop
from ..errors import UserError
from ..files import check_file, gathered
from ..runtime.card import DISPARITY, OUTPUTS, Card
from ..runtime.sessions import check_ending, open_session
from .checking import Difference, check, compare, sizes_around
from .describe import describe, scale_of
from .network import PairNetwork, PictureNetwork
from .quantization import pictures_of, quantize
from .writers import LEAST, WRITERS, trace

# Traced at this size where the config does not crop.
USUAL = (256, 320)
# Tracers take minutes over their windows, whose number they bind.
BOUND = (ShiftWindowMSA,)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: The file.
        card: What it says of itself.
        bytes: Its size, weights included.
        differences: From the network, at each size that was tried.
        model: What was written, in PyTorch.
    """

    path: Path
    card: Card
    bytes: int
    differences: Sequence[Difference]
    model: nn.Module


def export(
    config: str | Path | Config,
    checkpoint: str | Path,
    out: str | Path,
    *,
    output: str | None = None,
    resized: bool = True,
    half: bool = False,
    fixed_size: tuple[int, int] | None = None,
    int8: Sequence[str | Path] | None = None,
    classes: Sequence[str] | dict | None = None,
    slide: int | None = None,
) -> Exported:
    """Write a model into a file that runs without OpenMMLab.

    The file is compared with the model at three sizes before it is left. A
    segmentor for clips takes as many frames as the config's test dataset says.

    Args:
        config: Path or name of a config, or a loaded one.
        checkpoint: Path of the weights, or ``'zoo'``, as for
            :func:`~mmseg_attn.apis.load_model`.
        out: The file: ``.onnx``, ``.pt2`` (torch.export) or ``.xml``
            (OpenVINO, with a ``.bin`` beside it).
        output: ``'logits'``, ``'probabilities'`` or ``'mask'``; None takes
            the logits. A stereo network gives disparities alone.
        resized: Whether the output has the size of the picture, as that of
            a stereo network always has.
        half: Compute in 16 bits.
        fixed_size: The only height and width, of pictures or of the windows
            that they are predicted in; by default any.
        int8: Pictures to quantise by, of an ``.onnx``: the ranges of all
            activations are taken from them.
        classes: Names of the classes, as for
            :func:`~mmseg_attn.apis.load_model`.
        slide: Size of windows, as for :func:`~mmseg_attn.apis.load_model`.

    Returns:
        What was written.

    Raises:
        UserError: The model cannot be exported, or the file would disagree
            with it; none is left then.
    """
    out = Path(out)
    check_ending(out)
    check_file(out)
    kind = out.suffix.lower()
    if output not in (None, *OUTPUTS):
        raise UserError(
            f'output (--output) is {output!r}, expected {", ".join(OUTPUTS)}.'
        )
    if int8 is not None and (kind != '.onnx' or half):
        raise UserError(
            'int8 (--int8) is for .onnx files of full precision alone.'
        )
    checkpoint = chosen_weights(config, checkpoint)
    config = copy.deepcopy(load_config(config))
    task = task_of(config)
    if task not in (SEGMENTOR, CLIPS, STEREO):
        raise UserError(
            f'a {task.title} cannot be exported: its proposals and '
            'non-maximum suppression are of a number that no file of this '
            'kind can leave open.'
        )
    if task is STEREO:
        _refuse_for_pairs(output, resized, int8)
        output = DISPARITY
    elif output == 'mask':
        _refuse_masks(config, resized, slide)
    files = None if int8 is None else pictures_of(int8)
    model = load_model(
        config, checkpoint, device='cpu', classes=classes, slide=slide
    )
    card = describe(
        model,
        checkpoint,
        output=output or 'logits',
        resized=resized,
        fixed_size=fixed_size,
        precision='fp16' if half else 'fp32',
    )
    if fixed_size and card.window and tuple(fixed_size) != card.window:
        got, need = _text(fixed_size), _text(card.window)
        raise UserError(
            f'the fixed size (--fixed-size) is {got}, but pictures are '
            f'predicted in windows of {need}: give both one size.'
        )
    if task is STEREO:
        network = PairNetwork(model, half)
    else:
        network = PictureNetwork(model, card.output, resized, half)
    network.eval().requires_grad_(False)
    size = fixed_size or card.window or training_crop(config) or USUAL
    if min(size) < LEAST:
        raise UserError(
            f'the size is {_text(size)}, expected at least {LEAST} a side.'
        )
    if not fixed_size and any(isinstance(m, BOUND) for m in model.modules()):
        raise UserError(
            "the host's Swin transformer cannot be exported for pictures of "
            'any size: bind it to one, --fixed-size HEIGHT WIDTH.'
        )
    traced, tried = size, sizes_around(size)
    if fixed_size:
        tried = [tuple(size)]
    elif task is STEREO:
        # Of a pooled map of one position a tracer takes it that it is always
        # so; what the file makes of one is looked at.
        least = model.least_size
        traced = [max(side, 2 * least) for side in size]
        tried = [*tried[:2], (least - 7, least - 3)]
    together = (card.frames,) if card.frames else ()
    pictures = torch.zeros(2, *together, *traced, 3, dtype=torch.uint8)
    try:
        program = trace(network, pictures, fixed_size is not None)
    except UserError:
        if not fixed_size:
            raise
        # As the host's Swin, which takes its batch for a constant, too.
        program = trace(network, pictures[:1], True)
        card = replace(card, single=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    # OpenVINO's two files must bear the name in the end.
    with gathered(out.parent) as folder:
        path = folder / out.name
        WRITERS[kind](program, card, path)
        found = compare(open_session(path), network, tried)
        check(found, card, kind)
        if files:
            card = replace(card, precision='int8')
            quantize(path, card, files)
            found = compare(open_session(path), network, tried)
        written = sum(file.stat().st_size for file in folder.iterdir())
    return Exported(out, card, written, found, model)


def _refuse_masks(config: Config, resized: bool, slide: int | None) -> None:
    """Refuse class maps that predict could not bring to a picture's size."""
    mode = config.model.get('test_cfg', {}).get('mode')
    windows = slide is not None or mode == 'slide'
    reasons = {
        'pictures are predicted in windows': windows,
        'the test pipeline resizes pictures': scale_of(config)[0] is not None,
        '--no-resize leaves them at the size of the head': not resized,
    }
    for reason, found in reasons.items():
        if found:
            raise UserError(
                'class maps (--output mask) can be neither averaged nor '
                f'resized, and {reason}: leave --output mask out, since '
                'predict makes class maps of logits.'
            )


def _text(size: Sequence[int]) -> str:
    return f'{size[0]} x {size[1]} pixels (height, width)'


def _refuse_for_pairs(
    output: str | None, resized: bool, int8: Sequence | None
) -> None:
    """Refuse what makes no sense of a stereo network."""
    wishes = {
        f'--output {output}': output is not None,
        '--no-resize': not resized,
        '--int8': int8 is not None,
    }
    for wish, given in wishes.items():
        if given:
            raise UserError(
                f'{wish} is for segmentors: the file of a stereo network '
                'gives disparities in pixels, of the size of the pictures, '
                'in 32 or 16 bits (--fp16).'
            )
