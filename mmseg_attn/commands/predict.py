# Copyright (c) mmseg_attn contributors.
"""``predict``: segment pictures or videos, detect, match pairs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..configs import load_config
from ..errors import UserError, near
from ..metafiles import is_row, short_names
from ..progress import quiet_imports
from . import checkpoints, options

if TYPE_CHECKING:
    from ..inference.files import Summary

STOPPED = 'Stopped. The same command goes on from here.'
# What an exported file says itself, or cannot do, as where it is not given.
HOST_OPTIONS = dict(
    classes=None, device=None, slide=None, tta=False, cfg_options=[]
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.usage = (
        'python -m mmseg_attn predict CONFIG CHECKPOINT INPUT ... [options]\n'
        '       python -m mmseg_attn predict NAME INPUT ... [options]\n'
        '       python -m mmseg_attn predict MODEL.onnx INPUT ... [options]'
    )
    add = parser.add_argument
    add(
        'model',
        help='config file, or name of a packaged config, followed by its '
        'checkpoint (a file, a URL, or the folder of a training); or name of '
        'a model of the zoo; or what export wrote: .onnx, .pt2 or .xml',
    )
    add(
        'inputs',
        nargs='+',
        metavar='INPUT',
        help='picture, video, folder (searched with its subfolders), glob, '
        'number of a camera (0) or URL of a video (http, rtsp)',
    )
    options.add_out(
        parser, 'predictions', 'folder for overlay/ and mask/ or instances/'
    )
    add(
        '--save',
        nargs='+',
        choices=[
            *('overlay', 'mask', 'scores', 'areas', 'coco', 'labelme'),
            *('geotiff', 'instances', 'pfm', 'png', 'depth'),
        ],
        help='what to write: pictures (overlay); of a segmentor class maps '
        '(mask), the probabilities of all classes, areas of the classes as '
        "JSON, polygons in COCO's or LabelMe's format, and with --slide class "
        'maps as GeoTIFF (the default in place of masks for pictures with a '
        'place on Earth); boxes and masks of '
        'a detector as JSON (instances); disparities of a stereo network as '
        'PFM and as 16-bit PNG, and depth (default: overlay and mask, or all '
        'of another model; of videos the overlay)',
    )
    add(
        '--overlay-format',
        choices=['jpg', 'png'],
        default='jpg',
        help='(default: %(default)s)',
    )
    add(
        '--opacity',
        type=float,
        default=0.5,
        help='of the colours, 0 to 1 (default: %(default)s)',
    )
    add(
        '--score',
        type=float,
        default=0.3,
        help='show and save instances of at least this score, 0 to 1 '
        '(default: %(default)s)',
    )
    add(
        '--legend',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='class names beside the overlay',
    )
    add(
        '--names',
        action='store_true',
        help='names of the classes on the regions of a segmentor',
    )
    add(
        '--clear',
        type=options.comma_separated,
        nargs='?',
        const=('',),
        default=(),
        metavar='A,B,...',
        help='classes of a segmentor to be left as they are, without colour '
        'and polygons (without a name: background, else the first class)',
    )
    add(
        '--score-type',
        choices=['uint8', 'float16'],
        default='uint8',
        help='type of the probabilities (default: %(default)s)',
    )
    add(
        '--tolerance',
        type=float,
        default=1.0,
        metavar='PIXELS',
        help='how far polygons may leave the outlines of regions to have '
        'fewer points (default: %(default)s)',
    )
    options.add_class_names(parser)
    add(
        '--right',
        type=Path,
        help='of a stereo network: the right picture, or the folder of the '
        "right pictures, which have the left ones' names",
    )
    add(
        '--calibration',
        type=Path,
        metavar='FILE',
        help="of a stereo network, for depth: Middlebury's calib.txt, or a "
        'file with lines focal=PIXELS, baseline=LENGTH and perhaps '
        'doffs=PIXELS',
    )
    options.add_device(parser)
    add(
        '--provider',
        help='what an exported model runs on: cpu, cuda, tensorrt or '
        'openvino (default: cpu)',
    )
    add(
        '--batch-size',
        type=int,
        default=1,
        help='pictures at a time, those of one size gathered, or windows of '
        'a picture (default: %(default)s)',
    )
    add(
        '--frames',
        type=int,
        metavar='N',
        help='of each video, camera or URL, at most so many frames (default: '
        'to its end; of a camera or URL to Ctrl-C)',
    )
    add(
        '--tta',
        action='store_true',
        help="average over the flips and scales of the config's tta_pipeline",
    )
    options.add_slide(
        parser,
        'predict in overlapping windows, which bounds the memory that large '
        'pictures take',
    )
    add(
        '--blend',
        choices=['average', 'centre'],
        default='average',
        help='how windows that overlap are put together: the average of '
        'their logits, or one in which the centres of windows count more '
        '(default: %(default)s)',
    )
    add(
        '--bands',
        type=_bands,
        metavar='R,G,B',
        help='with --slide: bands of a TIFF file that are red, green and '
        'blue, or the grey one, counted from 1 (default: the first three)',
    )
    add(
        '--no-resize',
        action='store_false',
        dest='resize',
        help="predict a segmentor's pictures at their own size, without the "
        "Resize of the config's test pipeline",
    )
    options.add_depth(parser)
    options.add_overwrite(
        parser, 'redo what is there already instead of going on from it'
    )
    add(
        '--stop-on-error',
        action='store_true',
        help='stop at the first input that fails instead of going on',
    )
    options.add_cfg_options(parser)


def _bands(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(',')]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'expected numbers such as 3,2,1, got {text!r}'
        ) from None


def main(args: argparse.Namespace) -> int:
    """Predict all inputs; 1 if any failed."""
    from ..inference.outputs import Look
    from ..runtime.sessions import is_exported

    _check_order(args.model, args.inputs)
    common = dict(
        out=args.out,
        look=Look(
            opacity=args.opacity,
            score=args.score,
            legend=args.legend,
            names=args.names,
            clear=args.clear,
            tolerance=args.tolerance,
            score_type=args.score_type,
        ),
        save=args.save,
        overlay_format=args.overlay_format,
        depth=args.depth,
        batch_size=args.batch_size,
        frames=args.frames,
        blend=args.blend,
        bands=args.bands,
        overwrite=args.overwrite,
        stop_on_error=args.stop_on_error,
        right=args.right,
        calibration=args.calibration,
    )
    run = _by_file if is_exported(args.model) else _by_host
    found, following = run(args, common)
    above = ' (see above)' if found.failed else ''
    print(
        f'{found.done} of {found.inputs} inputs done in {found.seconds:.1f} '
        f's, {found.earlier} were done before, {found.failed} failed{above}. '
        f'Results: {args.out}'
    )
    if following and not found.failed:
        options.print_next(*following)
    return 1 if found.failed else 0


def _check_order(model: str, inputs: list[str]) -> None:
    """Refuse an exported model that is given as an input."""
    from ..runtime.sessions import is_exported

    for path in filter(is_exported, map(Path, inputs)):
        # Without its weights an .xml is something else, such as VOC's boxes.
        openvino = path.with_suffix('.bin').exists()
        if path.suffix.lower() != '.xml' or openvino:
            raise UserError(
                f'{path} is an exported model behind {model}: it is given '
                'first, and without a config, then pictures.'
            )


def _by_file(args: argparse.Namespace, common: dict) -> tuple[Summary, None]:
    from ..runtime import predict_files

    for name, left_out in HOST_OPTIONS.items():
        if getattr(args, name) != left_out:
            raise UserError(
                f'--{name.replace("_", "-")} is for a config and its '
                f'checkpoint, and {args.model} is an exported model, which '
                'says itself how it is run.'
            )
    if not args.resize:
        raise UserError(
            '--no-resize is for a config and its checkpoint: how '
            f'{args.model} resizes pictures was said when it was exported.'
        )
    provider = args.provider or 'cpu'
    found = predict_files(args.model, args.inputs, provider=provider, **common)
    return found, None


def _by_host(
    args: argparse.Namespace, common: dict
) -> tuple[Summary, tuple | None]:
    """Predict, and say how to export a model that can be exported."""
    with quiet_imports():
        from ..apis.prediction_files import predict_files
        from ..apis.tasks import DETECTOR, task_of

    checkpoint, *inputs = args.inputs
    if not (inputs or is_row(args.model)):
        raise _alone(args.model, checkpoint)
    if args.provider:
        raise UserError(
            '--provider is for exported models: a checkpoint runs on --device.'
        )
    config = load_config(args.model, options.read_options(args.cfg_options))
    weights = checkpoints.find_weights(args.model, checkpoint, inputs)
    if not inputs:
        raise _alone(args.model, checkpoint)
    found = predict_files(
        config,
        weights,
        inputs,
        classes=args.classes,
        device=args.device,
        slide=args.slide,
        tta=args.tta,
        resize=args.resize,
        **common,
    )
    if task_of(config) is DETECTOR:
        return found, None
    # Behind a model of the zoo there may be a picture at once.
    own = None if checkpoint in inputs else checkpoint
    given = args.model, own, 'model.onnx', *options.given_changes(args)
    return found, ('export', *given)


def _alone(model: str, checkpoint: str) -> UserError:
    return UserError(
        f'got {model} and {checkpoint} alone: expected a config, a checkpoint '
        'and pictures, or pictures behind a model of the zoo (zoo list) or an '
        f'exported one (.onnx, .pt2 or .xml).{near(model, short_names())}'
    )
