# Copyright (c) mmseg_attn contributors.
"""Options that several commands have, with one wording."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..configs import load_config
from ..errors import UserError

if TYPE_CHECKING:  # importing it takes longer than all of --help
    from mmengine.config import Config


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the config, as ``config``."""
    parser.add_argument(
        'config',
        help='config file, or name of a packaged config or of a model of the '
        'zoo',
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument(
        '--device',
        metavar='NAME',
        help='cpu, cuda or cuda:N (default: the best there is)',
    )


def add_slide(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--slide``, the side of windows; 0 is the config's.

    Args:
        parser: The parser.
        what: What it does here.
    """
    parser.add_argument(
        '--slide',
        type=_side,
        nargs='?',
        const=0,
        metavar='PIXELS',
        help=f"{what} (default size: the config's)",
    )


def _side(text: str) -> int:
    if text.isdecimal() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(
        f'expected the side of a window in pixels, such as 512, or nothing '
        f"behind it for the config's size, got {text!r}"
    )


def add_depth(parser: argparse.ArgumentParser) -> None:
    """Add ``--depth``."""
    parser.add_argument(
        '--depth',
        type=int,
        metavar='BITS',
        help='bits that the values of 16-bit pictures use, such as 12 of a '
        'camera of 12 bits (default: 16; pictures that would be nearly black '
        'are refused)',
    )


def add_debug(
    parser: argparse.ArgumentParser, default: bool | str = False
) -> None:
    """Add ``--debug``.

    Args:
        parser: The parser.
        default: ``argparse.SUPPRESS`` behind a subcommand, so that it leaves
            what was said before it.
    """
    parser.add_argument(
        '--debug',
        action='store_true',
        default=default,
        help='print the traceback of an error, too',
    )


def add_out(
    parser: argparse.ArgumentParser, default: str | None, what: str
) -> None:
    """Add ``--out``.

    Args:
        parser: The parser.
        default: File or folder; None: nothing is written.
        what: What is written there.
    """
    parser.add_argument(
        '-o',
        '--out',
        type=Path,
        default=default and Path(default),
        metavar='PATH',
        help=what if default is None else f'{what} (default: %(default)s)',
    )


def add_overwrite(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--overwrite``.

    Args:
        parser: The parser.
        what: What it does here.
    """
    parser.add_argument('--overwrite', action='store_true', help=what)


def add_work_dir(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--work-dir``.

    Args:
        parser: The parser.
        what: What is written there.
    """
    parser.add_argument(
        '--work-dir',
        help=f'folder for {what} (default: the one of the config, else '
        'work_dirs/CONFIG)',
    )


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add ``--launcher``, and what some launchers add."""
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started the processes (default: none, a single one)',
    )
    # torch.distributed.launch passes it; torchrun sets the variable instead.
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help=argparse.SUPPRESS,
    )


def comma_separated(text: str) -> list[str]:
    """Read names that stand between commas.

    Args:
        text: Such as ``'sky, road'``.
    """
    return [name.strip() for name in text.split(',')]


def add_class_names(parser: argparse.ArgumentParser) -> None:
    """Add ``--classes`` of a trained model."""
    parser.add_argument(
        '--classes',
        type=_class_names,
        metavar='FILE|A,B',
        help='class names: with commas, or a file with one in each line or '
        "with a dataset.json's content, whose colours are taken as well "
        "(default: the checkpoint's, else the config's)",
    )


def _class_names(text: str) -> list[str] | dict:
    if not Path(text).is_file():
        return comma_separated(text)
    from ..datasets.mask_classes import read_class_names

    try:
        return read_class_names(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, to be read by :func:`read_options`."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='change entries of the config, such as '
        'test_dataloader.dataset.data_root=data/mine or key="[1,2]"',
    )


def read_options(texts: Sequence[str]) -> dict:
    """Read the values of ``--cfg-options``.

    Args:
        texts: Texts of the form ``key=value``.

    Returns:
        Values by their keys, as mmengine's ``DictAction`` reads them.

    Raises:
        UserError: A text has another form.
    """
    # Only now: importing it takes longer than all of --help.
    from mmengine.config import DictAction

    for text in texts:
        if not text.partition('=')[0] or '=' not in text:
            raise UserError(
                f'--cfg-options got {text!r}, expected KEY=VALUE, such as '
                'train_cfg.max_iters=100.'
            )
    if not texts:
        return {}
    parser = argparse.ArgumentParser()
    parser.add_argument('options', nargs='+', action=DictAction)
    return parser.parse_args(list(texts)).options


def read_config(args: argparse.Namespace) -> Config:
    """Read the config of a training or test as the command line wants it.

    Args:
        args: With ``config`` and what :func:`add_work_dir`,
            :func:`add_cfg_options` and :func:`add_launcher` add.

    Returns:
        The config.

    Raises:
        UserError: It or an option cannot be read.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config, read_options(args.cfg_options))
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    return cfg


def add_pictures(parser: argparse._ActionsContainer) -> None:
    """Add ``--images`` and ``--masks``."""
    add = parser.add_argument
    add('--images', type=Path, help='folder of your own pictures')
    add('--masks', type=Path, help='their masks, of the same names')


def add_classes(parser: argparse._ActionsContainer) -> None:
    """Add ``--classes``, to be read by :func:`read_classes`."""
    parser.add_argument(
        '--classes',
        metavar='FILE|A,B',
        help='names of the classes: with commas, or a file with one in each '
        "line or with a dataset.json's content (default: those of a "
        'dataset.json in or beside the masks, else the values found)',
    )


def given_pictures(args: argparse.Namespace) -> list[object]:
    """Repeat what :func:`add_pictures` and :func:`add_classes` were given."""
    named = ['--classes', args.classes] if args.classes else []
    return ['--images', args.images, '--masks', args.masks, *named]


def read_classes(args: argparse.Namespace) -> dict | None:
    """Read what ``--classes`` says, None where it is not given.

    Raises:
        UserError: Fewer than two names.
    """
    from ..datasets.mask_classes import read_class_names

    return read_class_names(args.classes) if args.classes else None


def check_folders(args: argparse.Namespace) -> None:
    """Refuse ``--images`` beside a config, and either without its other.

    Args:
        args: With ``config`` and what :func:`add_pictures` adds.

    Raises:
        UserError: Neither a config nor pictures are given, or both, or one
            folder alone.
    """
    given = args.images is not None, args.masks is not None
    if given != (args.config is None,) * 2:
        raise UserError(
            'expected a config, or --images and --masks of your own.'
        )


def add_trials(parser: argparse.ArgumentParser) -> None:
    """Add the options of what runs trials, without ``--device``."""
    add = parser.add_argument
    add_pictures(parser)
    add_classes(parser)
    add(
        '--iters',
        type=int,
        help='training iterations of each model (default: 1000, of --full of '
        'compare 2000)',
    )
    add_depth(parser)


def option_of(name: str) -> str:
    """The option that gives an argument its value."""
    return {'published': '--from'}.get(name, f'--{name.replace("_", "-")}')


def given_changes(args: argparse.Namespace) -> list[str]:
    """Repeat what :func:`add_cfg_options` was given."""
    return ['--cfg-options'] * bool(args.cfg_options) + args.cfg_options


def print_next(*words: object) -> None:
    """Print the command that comes next, to be typed where the user stands.

    Args:
        *words: The command and its arguments; None is left out.
    """
    given = [str(word) for word in words if word is not None]
    print(f'Next: python -m mmseg_attn {shlex.join(given)}')


def conversion_parser(doc: str) -> argparse.ArgumentParser:
    """Make a parser with the two files that each converter has.

    Args:
        doc: What the converter says of itself.

    Returns:
        It gives ``source`` and ``out``.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, help="the authors' checkpoint")
    parser.add_argument('out', type=Path, help='checkpoint to write')
    return parser
