# Copyright (c) mmseg_attn contributors.
"""``attention``: show where a pixel looks."""

import argparse
from pathlib import Path

from ..configs import load_config
from ..errors import UserError
from ..files import whole
from ..progress import quiet_imports
from . import checkpoints, options

FORMATS = ('.png', '.jpg', '.pdf', '.svg')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    options.add_config(parser)
    checkpoints.add_checkpoint(parser)
    add = parser.add_argument
    add(
        'pictures',
        type=Path,
        nargs='+',
        metavar='PICTURE',
        help='one, or with --html as many as you like',
    )
    add(
        '--pixel',
        type=int,
        nargs=2,
        metavar=('X', 'Y'),
        action='append',
        dest='pixels',
        help='counted from the upper left corner; may be given many times',
    )
    add(
        '--html',
        action='store_true',
        help='a page on which the pointer chooses the pixel, in place of a '
        'figure of --pixel',
    )
    add(
        '--masks',
        type=Path,
        help='their masks, of the same names',
    )
    options.add_out(
        parser,
        None,
        f'figure, {" ".join(FORMATS)} (default: attention.png), or page '
        '(default: attention.html)',
    )
    add(
        '--layers',
        default='',
        metavar='NAME',
        help='only layers whose name in the model begins so, such as '
        'decode_head (default: all)',
    )
    options.add_overwrite(parser, 'replace an earlier figure or page')
    options.add_class_names(parser)
    options.add_device(parser)
    options.add_cfg_options(parser)


def main(args: argparse.Namespace) -> None:
    """Trace and draw, or write the page.

    Raises:
        UserError: What is written would replace a file, or the model, a
            picture or a pixel cannot be used.
    """
    found = [*args.pictures]
    typed = args.config, args.checkpoint, *found
    weights = checkpoints.find_weights(args.config, args.checkpoint, found)
    args.pictures = [Path(picture) for picture in found]
    _check_arguments(args)
    out = args.out or Path('attention.html' if args.html else 'attention.png')
    _check_files(out, args)
    with quiet_imports():
        from ..apis import load_model
        from ..apis.tasks import SEGMENTOR, check_task

    cfg = load_config(args.config, options.read_options(args.cfg_options))
    check_task(cfg, SEGMENTOR)
    model = load_model(cfg, weights, device=args.device, classes=args.classes)
    if args.html:
        title = f'{Path(args.config).stem}, {Path(weights).name}'
        _write_page(model, out, title, args)
    else:
        _draw(model, out, args)
        changes = options.given_changes(args)
        options.print_next('attention', *typed, '--html', *changes)


def _write_page(
    model, out: Path, title: str, args: argparse.Namespace
) -> None:
    from ..apis import write_attention_page

    steps = write_attention_page(
        model,
        args.pictures,
        out,
        masks=args.masks,
        layers=args.layers,
        title=title,
    )
    for picture, step in zip(args.pictures, steps, strict=True):
        if step > 1:
            print(
                f'{picture}: {step} x {step} cells are one block, to stay '
                'below 10 MB and light for a browser'
            )
    size = out.stat().st_size / 1e6
    print(f'Page: {out} ({size:.1f} MB); open it in a browser')


def _draw(model, out: Path, args: argparse.Namespace) -> None:
    """Draw, and say how far each pixel looks."""
    from ..apis import attention_maps, draw_attention
    from ..apis.predictors import Segmenter
    from ..visualization.attention import reach

    (picture,) = args.pictures
    maps = attention_maps(model, picture, args.pixels, args.layers)
    segmenter = Segmenter(model)
    sample = segmenter.prepare(picture)
    (mask,) = segmenter([sample])
    classes = model.dataset_meta['classes']
    names = [classes[mask[y, x]] for x, y in args.pixels]
    figure = draw_attention(sample.picture, args.pixels, maps, names)
    with whole(out) as path:
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
    print(f'Figure: {out}')


def _check_arguments(args: argparse.Namespace) -> None:
    if args.html and args.pixels:
        raise UserError(
            '--pixel is for a figure: on the page of --html the pointer '
            'chooses the pixel.'
        )
    if not args.html and not args.pixels:
        raise UserError(
            'expected --pixel X Y, as often as you like, for a figure, or '
            '--html for a page.'
        )
    if not args.html and len(args.pictures) > 1:
        raise UserError(
            f'got {len(args.pictures)} pictures, expected one for a figure; '
            '--html takes many.'
        )
    if not args.html and args.masks:
        raise UserError('--masks is for --html.')


def _check_files(out: Path, args: argparse.Namespace) -> None:
    formats = ('.html', '.htm') if args.html else FORMATS
    if out.suffix.lower() not in formats:
        raise UserError(f'--out {out} must end in one of {" ".join(formats)}.')
    for picture in args.pictures:
        if not picture.is_file():
            raise UserError(f'No picture {picture}.')
        if out.exists() and out.samefile(picture):
            raise UserError(f'--out {out} is the picture itself.')
    if out.exists() and not args.overwrite:
        raise UserError(f'{out} exists; replace it with --overwrite.')
