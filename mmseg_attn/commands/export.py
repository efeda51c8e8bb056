# Copyright (c) mmseg_attn contributors.
"""``export``: write a model into a file that runs without OpenMMLab."""

import argparse
from pathlib import Path

from ..configs import load_config
from ..progress import make_console, quiet_imports
from . import checkpoints, options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    options.add_config(parser)
    checkpoints.add_checkpoint(parser)
    add = parser.add_argument
    add(
        'out',
        type=Path,
        metavar='FILE',
        help='model.onnx, model.pt2 (torch.export), or model.xml (OpenVINO, '
        'with model.bin beside it)',
    )
    add(
        '--output',
        choices=['logits', 'probabilities', 'mask'],
        help='what a segmentor gives (default: logits, of which predict makes '
        'everything else)',
    )
    add(
        '--resize',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='within the network to the size of the picture',
    )
    add('--fp16', action='store_true', help='compute in 16 bits')
    add(
        '--fixed-size',
        nargs=2,
        type=int,
        metavar=('HEIGHT', 'WIDTH'),
        help='bind the network to one size (default: any batch, height and '
        'width)',
    )
    add(
        '--int8',
        nargs='+',
        type=Path,
        metavar='PICTURES',
        help='compute convolutions in 8 bits, by the ranges that these '
        'pictures or folders give (.onnx)',
    )
    pictures = parser.add_argument_group(
        'mIoU', 'of a segmentor on labelled pictures, before and after'
    )
    options.add_pictures(pictures)
    options.add_class_names(parser)
    options.add_slide(parser, 'have predict go in windows')
    options.add_cfg_options(parser)


def main(args: argparse.Namespace) -> None:
    """Export, and print what was written and how far it is from PyTorch.

    Raises:
        UserError: The model cannot be exported.
    """
    from rich.table import Table

    from ..files import check_file
    from ..runtime.sessions import check_ending

    check_ending(args.out)  # before what takes seconds
    check_file(args.out)
    with quiet_imports():
        from ..apis.tasks import CLIPS, SEGMENTOR, check_task
        from ..export import export
        from ..export.measuring import labelled_pairs, mean_ious

    pairs = labelled_pairs(args.images, args.masks)
    config = load_config(args.config, options.read_options(args.cfg_options))
    if args.images:
        check_task(config, SEGMENTOR, CLIPS)
    weights = checkpoints.find_weights(args.config, args.checkpoint)
    fixed = tuple(args.fixed_size) if args.fixed_size else None
    found = export(
        config,
        weights,
        args.out,
        output=args.output,
        resized=args.resize,
        half=args.fp16,
        fixed_size=fixed,
        int8=args.int8,
        classes=args.classes,
        slide=args.slide,
    )
    card = found.card
    stereo = not card.classes
    table = Table('pixels', 'largest difference')
    if not stereo:
        table.add_column('pixels of another class')
    table.add_column('ms, PyTorch', justify='right')
    table.add_column(f'ms, {args.out.suffix}', justify='right')
    for item in found.differences:
        table.add_row(
            ' x '.join(map(str, item.size)),
            f'{item.values:.1e}',
            *([] if stereo else [f'{item.pixels:.4%}']),
            f'{1000 * item.theirs:.0f}',
            f'{1000 * item.ours:.0f}',
        )
    make_console(100).print(table)
    if card.precision == 'int8':
        print(
            'These are pictures of noise, which say little of 8 bits: '
            '--images and --masks compare the mIoU.'
        )
    if card.window:
        print(
            'Each size was one window: predict averages the logits of those '
            'that overlap.'
        )
    given = f'{len(card.classes)} classes, gives {card.output}'
    if stereo:
        given = f'gives disparities below {card.max_disparity} pixels'
    elif card.frames:
        given = f'clips of {card.frames} frames, {given}'
    print(
        f'{args.out}: {found.bytes / 1e6:.1f} MB, {card.precision}, {given}.'
    )
    if pairs:
        before, after = mean_ious(found.model, args.out, pairs)
        print(f'mIoU: {before:.2f} by PyTorch, {after:.2f} by {args.out}')
    if stereo:
        options.print_next('predict', args.out, 'LEFT', '--right', 'RIGHT')
    else:
        options.print_next('predict', args.out, args.images or 'PICTURES')
