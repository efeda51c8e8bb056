# Copyright (c) mmseg_attn contributors.
"""``zoo``: list, download and check trained models."""

import argparse
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import UserError
from ..metafiles import find_row, is_row
from ..progress import make_console, quiet_imports
from . import options

STOPPED = 'Stopped. The same command goes on from here.'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = parser.add_subparsers(dest='action', required=True)
    add = actions.add_parser('list', help='show what there is').add_argument
    add('--method', default='', help='beginning of its name, such as ccnet')
    add('--dataset', default='', help='the same, such as voc')
    action = actions.add_parser('download', help='fetch, check, then name')
    add = action.add_argument
    add('name', nargs='+', help='a model of the list')
    add(
        '--dest',
        type=Path,
        default=Path(),
        help='folder for config and checkpoint (default: this one)',
    )
    add('--retries', type=int, default=4, help='(default: %(default)s)')
    add(
        '--timeout',
        type=float,
        default=30,
        help='seconds to wait for the server (default: %(default)s)',
    )
    add = actions.add_parser('verify', help='check a file').add_argument
    add(
        'file',
        help='checkpoint, or a model of the list: its file in the package, or '
        "in torch.hub's folder",
    )
    add('--config', help='what it is of, if its name does not tell')
    for action in actions.choices.values():
        options.add_debug(action, argparse.SUPPRESS)


def main(args: argparse.Namespace) -> None:
    """List, download or check."""
    with quiet_imports():
        from ..apis import zoo

    if args.action == 'list':
        _print_list(zoo.list_checkpoints(args.method, args.dataset))
    elif args.action == 'verify':
        path = args.file
        if is_row(path):
            path = zoo.place_of(find_row(path))
            if not path.exists():
                raise UserError(
                    f'{args.file} has not been downloaded to {path.parent}: '
                    f'python -m mmseg_attn zoo download {args.file} fetches '
                    'it, and checks it on the way.'
                )
        print(f'{path}: {zoo.verify_checkpoint(path, args.config)}')
    else:
        # All names first, before anything is fetched.
        for row in [find_row(name) for name in args.name]:
            path, found = zoo.download(
                row, args.dest, retries=args.retries, timeout=args.timeout
            )
            print(f'{path}: {found}')
            config = args.dest / row.config.name
            options.print_next('predict', config, path, 'PICTURES')


def _print_list(rows: list) -> None:
    from rich.table import Table

    table = Table(
        caption='mIoU in per cent, as the source says. A name is enough for '
        'predict, test, worst, attention, export and load_model.'
    )
    table.add_column('name', no_wrap=True, overflow='fold')
    for title in ('method', 'dataset', 'backbone', 'mIoU', 'source'):
        table.add_column(title, overflow='fold')
    for row in rows:
        table.add_row(
            row.title,
            row.method,
            row.dataset,
            row.backbone,
            '-' if row.miou is None else f'{row.miou:.2f}',
            'ours' if row.short else urlsplit(row.url).netloc or 'file',
        )
    # Into a file or a pipe, lines are as long as they need to be.
    make_console(200).print(table)
