# Copyright (c) mmseg_attn contributors.
"""``python -m mmseg_attn COMMAND``: see ``python -m mmseg_attn --help``."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from . import __version__
from .commands import options
from .errors import one_line_errors

# Command -> what it does. Each is a module of :mod:`mmseg_attn.commands` with
# ``add_arguments(parser)`` and ``main(args)``. Only that of the given command
# is imported, and it imports the library when it runs: so --help is there at
# once, and ``info`` works where a host package is missing or broken.
COMMANDS = {
    'info': 'versions, host packages and operator backends',
    'scenes': 'write a demo dataset of scenes',
    'demo': 'train and compare FCN and CCNet, make a sheet',
    'compare': 'train all methods under one budget',
    'config': 'write a packaged config in one piece, to be changed',
    'train': 'train the model of a config, or one on your own pictures',
    'test': 'measure a model on the test data of a config',
    'browse': 'draw samples of a dataset with their labels',
    'flops': 'count the parameters and operations of a segmentor',
    'labels': 'count the labels of data, find bad ones',
    'zoo': 'list, download and check trained models',
    'reproduce': 'train a model of the zoo anew, and compare',
    'predict': 'segment pictures or videos, detect, match pairs',
    'export': 'write a model for ONNX Runtime, OpenVINO or PyTorch',
    'worst': 'find the pictures that a model does worst',
    'attention': 'show where a pixel looks',
}


class _Parser(argparse.ArgumentParser):
    """Takes options between arguments, as argparse can, but not by default."""

    _apart = False

    def parse_known_args(self, args=None, namespace=None):
        # Those of a command first, then what stands between; it calls this.
        if self._apart or self._subparsers or {'-h', '--help'} & {*args}:
            return super().parse_known_args(args, namespace)
        self._apart = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._apart = False


def main(argv: Sequence[str] | None = None) -> int | None:
    """Run a command.

    Args:
        argv: The command and its arguments; by default those of the process.

    Returns:
        Exit code, where it is not 0.

    Raises:
        SystemExit: With one line, for what the user can put right.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = _Parser(prog='python -m mmseg_attn')
    parser.add_argument(
        '--version', action='version', version=f'mmseg_attn {__version__}'
    )
    commands = parser.add_subparsers(
        dest='command', metavar='COMMAND', required=True
    )
    module = None
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if argv and argv[0] == name:
            with one_line_errors():
                module = importlib.import_module(f'mmseg_attn.commands.{name}')
            module.add_arguments(command)
            options.add_debug(command)
    args = parser.parse_args(argv)
    stopped = getattr(module, 'STOPPED', 'Stopped.')
    with one_line_errors(stopped, args.debug):
        from .progress import quiet_hosts

        logs = getattr(module, 'LOGS', False)
        with nullcontext() if logs else quiet_hosts():
            return module.main(args)


if __name__ == '__main__':
    sys.exit(main())
