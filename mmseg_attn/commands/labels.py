# Copyright (c) mmseg_attn contributors.
"""``labels``: count the labels of a config and find bad ones."""

import argparse

from ..configs import SPLITS, load_config
from ..progress import make_console, quiet_imports
from . import options

# Problems that are printed in full.
SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    options.add_config(parser)
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
        for problem in problems[:SHOWN]:
            console.print(f'- {problem}')
        if len(problems) > SHOWN:
            console.print(f'- and {len(problems) - SHOWN} more')
        if problems:
            verdict = f'{len(problems)} problems.'
        else:
            verdict = 'No problem, but see above.' if remarks else 'Good.'
        console.print(f'{verdict}\n')
        wrong += len(problems)
    return 1 if wrong else 0
