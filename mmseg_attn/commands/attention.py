# Copyright (c) mmseg_attn contributors.
"""``attention``: show where a pixel looks."""

import argparse
from pathlib import Path

from ..configs import load_config
from ..errors import UserError
from ..files import whole
from ..progress import quiet_imports
from . import options

FORMATS = ('.png', '.jpg', '.pdf', '.svg')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    options.add_config(parser)
    options.add_checkpoint(parser)
    add = parser.add_argument
    add('picture', type=Path)
    add(
        '--pixel',
        type=int,
        nargs=2,
        metavar=('X', 'Y'),
        action='append',
        required=True,
        dest='pixels',
        help='counted from the upper left corner; may be given many times',
    )
    options.add_out(parser, 'attention.png', f'figure, {" ".join(FORMATS)}')
    add(
        '--layers',
        default='',
        metavar='NAME',
        help='only layers whose name in the model begins so, such as '
        'decode_head (default: all)',
    )
    options.add_overwrite(parser, 'replace an earlier figure')
    options.add_class_names(parser)
    options.add_device(parser)
    options.add_cfg_options(parser)


def main(args: argparse.Namespace) -> None:
    """Trace, draw, and say how far each pixel looks.

    Raises:
        UserError: The figure would replace a file, or the model, the picture
            or a pixel cannot be used.
    """
    _check_files(args.out, args.picture, args.overwrite)
    with quiet_imports():
        from ..apis import attention_maps, draw_attention, load_model
        from ..apis.predictors import Segmenter
        from ..apis.tasks import SEGMENTOR, check_task
        from ..visualization.attention import reach

    cfg = load_config(args.config, options.read_options(args.cfg_options))
    check_task(cfg, SEGMENTOR)
    model = load_model(
        cfg, args.checkpoint, device=args.device, classes=args.classes
    )
    maps = attention_maps(model, args.picture, args.pixels, args.layers)
    segmenter = Segmenter(model)
    sample = segmenter.prepare(args.picture)
    (mask,) = segmenter([sample])
    classes = model.dataset_meta['classes']
    names = [classes[mask[y, x]] for x, y in args.pixels]
    figure = draw_attention(sample.picture, args.pixels, maps, names)
    with whole(args.out) as path:
        figure.savefig(path)
    found = zip(args.pixels, names, maps.cells, strict=True)
    for (x, y), name, cells in found:
        for title, weights in zip(maps.titles(), cells, strict=True):
            print(
                f'pixel ({x}, {y}), {name}, {title}: '
                f'90 % of the weight on {reach(weights)} of {weights.size} '
                f'cells, sum {weights.sum():.4f}'
            )
    for note in maps.notes:
        print(note)
    print(f'Figure: {args.out}')


def _check_files(out: Path, picture: Path, overwrite: bool) -> None:
    if out.suffix.lower() not in FORMATS:
        raise UserError(f'--out {out} must end in one of {" ".join(FORMATS)}.')
    if not picture.is_file():
        raise UserError(f'No picture {picture}.')
    if out.exists() and out.samefile(picture):
        raise UserError(f'--out {out} is the picture itself.')
    if out.exists() and not overwrite:
        raise UserError(f'{out} exists; replace it with --overwrite.')
