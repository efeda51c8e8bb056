# Copyright (c) mmseg_attn contributors.
"""``labels``: count the labels of a config or of folders, find bad ones."""

import argparse
from collections.abc import Sequence

from rich.console import Console

from ..configs import SPLITS, load_config
from ..errors import UserError
from ..progress import make_console, quiet_imports
from . import options

# Problems that are printed in full.
SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        'config',
        nargs='?',
        help='config file, or name of a packaged config; none with --images',
    )
    folders = parser.add_argument_group('your own pictures, no config')
    options.add_pictures(folders)
    options.add_classes(folders)
    parser.add_argument(
        '--split',
        nargs='+',
        choices=SPLITS,
        default=SPLITS,
        help='which dataloaders (default: all that the config has)',
    )
    options.add_cfg_options(parser)


def main(args: argparse.Namespace) -> int:
    """Print a report of each dataset; 1 if anything is wrong in them."""
    options.check_folders(args)
    if args.config and args.classes:
        raise UserError(
            '--classes is for --images and --masks; a config names its own.'
        )
    if args.images:
        return _check_folders(args)
    with quiet_imports():
        from ..apis import check_labels

    cfg = load_config(args.config, options.read_options(args.cfg_options))
    console = make_console(110)
    wrong = 0
    for report in check_labels(cfg, args.split):
        problems = report.problems
        console.print(report.summary())
        console.print(report.table())
        remarks = report.remarks()
        for line in remarks:
            console.print(line, style='bold red')
        _print_verdict(console, problems, remarks)
        wrong += len(problems)
    if not wrong:
        options.print_next('train', args.config, *options.given_changes(args))
    return 1 if wrong else 0


def _print_verdict(
    console: Console, problems: Sequence[str], remarks: Sequence[str]
) -> None:
    for problem in problems[:SHOWN]:
        console.print(f'- {problem}', soft_wrap=True)
    if len(problems) > SHOWN:
        console.print(f'- and {len(problems) - SHOWN} more')
    if problems:
        verdict = f'{len(problems)} problems.'
    else:
        verdict = 'No problem, but see above.' if remarks else 'Good.'
    console.print(f'{verdict}\n')


def _check_folders(args: argparse.Namespace) -> int:
    """Print what two folders hold; 1 if anything is wrong in them."""
    with quiet_imports():
        from ..apis.folder_labels import folder_problems
        from ..apis.own_data import read_own_data
        from ..apis.own_training import class_table

    console = make_console(110)
    classes = options.read_classes(args)
    try:
        data = read_own_data(args.images, args.masks, classes=classes)
    except UserError as error:
        problems = folder_problems(args.images, args.masks, classes)
        _print_verdict(console, problems or [str(error)], ())
        return 1
    for note in data.notes:
        console.print(note, soft_wrap=True)
    print(class_table(data))
    if data.classes.ignored:
        console.print('255 is ignored.')
    remarks = [f'Warning: {line}.' for line in data.warnings()]
    for line in remarks:
        console.print(line, style='bold red', soft_wrap=True)
    _print_verdict(console, (), remarks)
    options.print_next('train', *options.given_pictures(args))
    return 0
