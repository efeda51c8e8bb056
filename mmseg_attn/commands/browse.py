# Copyright (c) mmseg_attn contributors.
"""``browse``: draw samples of a dataset with their labels."""

import argparse
import sys

from ..configs import SPLITS, load_config
from ..errors import UserError
from ..progress import quiet_imports
from . import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    options.add_config(parser)
    add = parser.add_argument
    options.add_out(parser, 'samples', 'folder for the pictures')
    add(
        '--split',
        choices=SPLITS,
        default='train',
        help='(default: %(default)s)',
    )
    add(
        '-n',
        '--number',
        type=int,
        default=12,
        help='of samples (default: %(default)s)',
    )
    add(
        '--seed',
        type=int,
        default=0,
        help='of the choice of samples and of their augmentation '
        '(default: %(default)s)',
    )
    options.add_cfg_options(parser)


def main(args: argparse.Namespace) -> int:
    """Draw the samples; 1 if any could not be."""
    with quiet_imports():
        from ..apis.browsing import Browser

    cfg = load_config(args.config, options.read_options(args.cfg_options))
    browser = Browser(
        cfg, args.out, split=args.split, number=args.number, seed=args.seed
    )
    for note in browser.notes:
        print(f'Note: {note}')
    drawn = failed = 0
    for path, source in browser.draw():
        if isinstance(source, UserError):
            print(f'Error: {" ".join(str(source).split())}', file=sys.stderr)
            failed += 1
        else:
            print(f'{path}: {source}')
            drawn += 1
    print(
        f'{drawn} of {browser.size} samples drawn'
        + (f', {failed} could not be (see above)' if failed else '')
    )
    if drawn and not failed:
        options.print_next('train', args.config, *options.given_changes(args))
    return int(failed > 0)
