# Copyright (c) mmseg_attn contributors.
"""``info``: what is installed and what runs here."""

import argparse
import json

from . import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_mutually_exclusive_group().add_argument
    add('--json', action='store_true', help='print the report as JSON')
    add(
        '--operators',
        action='store_true',
        help='print what the operators support as a Markdown table',
    )
    add(
        '--configs',
        action='store_true',
        help='print the configs by benchmark as a Markdown table',
    )


def main(args: argparse.Namespace) -> None:
    """Print the report or a table."""
    from ..apis import info
    from ..configs import benchmark_table

    if args.operators:
        print(info.operator_table())
    elif args.configs:
        print(benchmark_table())
    else:
        report = info.collect_info()
        if args.json:
            print(json.dumps(report, indent=2))
        else:
            print(info.as_text(report))
            options.print_next('demo')
