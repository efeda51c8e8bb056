# Copyright (c) mmseg_attn contributors.
"""``python -m mmseg_attn COMMAND``: see ``python -m mmseg_attn --help``."""

import argparse
import importlib
import sys
from contextlib import redirect_stdout
from io import StringIO

from .hosts import missing_mmdet

# Command -> (module with add_arguments(parser) and main(args), help line).
# Only the chosen command's module is imported, so that ``info`` still works
# where a host package is missing or broken.
COMMANDS = {
    'info': ('apis.info', 'versions, host packages and operator backends'),
    'scenes': ('apis.scenes', 'write a demo dataset of scenes'),
    'demo': ('trials.demo', 'train and compare FCN and CCNet, make a sheet'),
    'compare': ('trials.comparison', 'train all methods under one budget'),
    'labels': ('apis.labels', 'count the labels of a config, find bad ones'),
    'zoo': ('apis.zoo', 'list, download and check trained models'),
    'predict': (
        'apis.predict',
        'segment pictures or videos, detect, match pairs',
    ),
    'worst': ('apis.worst', 'find the pictures that a model does worst'),
    'attention': ('apis.attention_maps', 'show where a pixel looks'),
}


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog='python -m mmseg_attn')
    commands = parser.add_subparsers(
        dest='command', metavar='COMMAND', required=True
    )
    for name, (module, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if argv and argv[0] == name:
            with redirect_stdout(StringIO()):  # the hosts greet
                module = importlib.import_module(f'mmseg_attn.{module}')
            module.add_arguments(command)
            command.set_defaults(main=module.main)
    args = parser.parse_args(argv)
    try:
        return args.main(args)
    except ModuleNotFoundError as error:
        if not missing_mmdet(error):
            raise
        raise SystemExit(f'Error: {missing_mmdet(error)}') from error


if __name__ == '__main__':
    sys.exit(main())
