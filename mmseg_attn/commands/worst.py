# Copyright (c) mmseg_attn contributors.
"""``worst``: find the pictures that a model does worst."""

import argparse
import os

from ..configs import SPLITS, load_config
from ..errors import UserError
from ..files import check_writable
from ..progress import make_console, quiet_imports
from . import checkpoints, options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    options.add_config(parser)
    checkpoints.add_checkpoint(parser)
    add = parser.add_argument
    add(
        '-n',
        '--number',
        type=int,
        default=8,
        help='pictures on the sheet (default: %(default)s)',
    )
    add(
        '--class',
        dest='by_class',
        metavar='CLASS',
        help='order by the IoU of this class (default: by the mIoU)',
    )
    add(
        '--one-per-sequence',
        action='store_true',
        help='of each sequence the worst picture alone; pictures are of one '
        'if their names are the same before the last number, as in '
        '0001TP_006690.png',
    )
    options.add_out(parser, 'worst', 'folder for scores.csv and worst.png')
    add(
        '--split',
        choices=SPLITS,
        default='test',
        help='(default: %(default)s)',
    )
    options.add_overwrite(parser, 'replace earlier results')
    options.add_class_names(parser)
    options.add_device(parser)
    options.add_cfg_options(parser)


def main(args: argparse.Namespace) -> None:
    """Score the pictures, write the table and the sheet, print the worst.

    Raises:
        UserError: There are results already, or the model or its data cannot
            be used.
    """
    import numpy as np
    from rich.table import Table

    with quiet_imports():
        from ..apis import load_model, worst
        from ..apis.tasks import SEGMENTOR, check_task
        from ..apis.tracing import has_maps
        from ..engine.data_checks import check_output_folder, check_paths

    for name in ('scores.csv', 'worst.png'):
        if (args.out / name).exists() and not args.overwrite:
            raise UserError(
                f'{args.out / name} exists; replace it with --overwrite.'
            )
    cfg = load_config(args.config, options.read_options(args.cfg_options))
    weights = checkpoints.find_weights(args.config, args.checkpoint)
    # Before the model is built.
    check_task(cfg, SEGMENTOR)
    check_output_folder(cfg, args.out)
    check_writable(args.out)
    check_paths(cfg, f'{args.split}_dataloader')
    model = load_model(cfg, weights, device=args.device, classes=args.classes)
    found = worst(
        model,
        args.split,
        number=args.number,
        by_class=args.by_class,
        one_per_sequence=args.one_per_sequence,
    )
    table, sheet = found.save(args.out)
    shown = Table('picture', 'mIoU', 'worst class', 'its IoU')
    for score in found.worst:
        index = score.worst_class
        shown.add_row(
            os.path.basename(score.path),
            f'{score.miou:.1f}',
            str(found.classes[index]),
            f'{score.iou[index]:.1f}',
        )
    what = f'IoU of {args.by_class}' if args.by_class else 'mIoU'
    median = np.nanmedian([row[0] for row in found.rows])
    each = ''
    if found.sequences == 1:
        each = ', the worst of the only sequence'
    elif found.sequences:
        each = f', the worst of each of {found.sequences} sequences'
    console = make_console(100)
    console.print(
        f'{len(found.worst)} of {len(found.rows)} pictures with the lowest '
        f'{what} in per cent{each}; the median is {median:.1f}'
    )
    console.print(shown)
    print(f'All pictures: {table}; the worst: {sheet}')
    if found.worst and has_maps(model):
        given = args.config, args.checkpoint, found.worst[0].path, '--html'
        options.print_next('attention', *given, *options.given_changes(args))
