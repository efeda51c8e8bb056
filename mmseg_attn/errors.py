# Copyright (c) mmseg_attn contributors.
"""The error for what the user can put right."""

import difflib
import errno
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from .hosts import missing_host

# Optional packages -> what pip installs for them, where that is another name.
INSTALLED_BY = {
    'cv2': 'opencv-python-headless',
    'onnx': '"mmseg_attn[export]"',
    'onnxscript': '"mmseg_attn[export]"',
    'rasterio': '"mmseg_attn[geo]"',
}


class UserError(ValueError):
    """Something the user can put right: commands print it as one line."""


def near(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """Ask whether a name that is not there was meant to be another.

    Args:
        name: What was asked for.
        names: What there is.
        cutoff: How alike they must be, from 0 to 1.

    Returns:
        A sentence after a space, to be appended to a message; empty where none
        is near.
    """
    found = difflib.get_close_matches(name, list(names), cutoff=cutoff)
    return f' Did you mean {" or ".join(found)}?' if found else ''


def need_package(what: str, name: str) -> ModuleType:
    """Import an optional package, or say how to install it.

    Args:
        what: What needs it, for the message.
        name: The module.

    Returns:
        The module.

    Raises:
        UserError: It is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition('.')[0]
        if error.name != package:
            raise
        raise UserError(
            f'{what} needs {package}, which is not installed: pip install '
            f'{INSTALLED_BY.get(package, package)}'
        ) from error


@contextmanager
def one_line_errors(
    stopped: str = 'Stopped.', debug: bool = False
) -> Iterator[None]:
    """Turn what the user can put right, or did, into an exit with one line.

    A :class:`UserError`, an OSError (a full disk, a folder that cannot be
    written) or a missing host ends with exit code 1, Ctrl-C with 130; every
    other error keeps its traceback.

    Args:
        stopped: What to say after Ctrl-C.
        debug: Whether the traceback is printed, too.

    Yields:
        Nothing, while a command runs.

    Raises:
        SystemExit: Instead of these errors.
    """
    try:
        yield
    except (UserError, OSError, ModuleNotFoundError) as error:
        line = _line_of(error)
        if line is None:
            raise
        if debug:
            traceback.print_exception(error)
        raise SystemExit(f'Error: {line}') from error
    except KeyboardInterrupt as error:
        print(stopped, file=sys.stderr)
        raise SystemExit(130) from error


def _line_of(error: Exception) -> str | None:
    if isinstance(error, ModuleNotFoundError):
        return missing_host(error)
    # From a loader's worker process it comes behind a traceback.
    line = ' '.join(str(error).rpartition(f'{_NAME}: ')[2].split())
    if getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT):
        line += '. Free some space, then run the same command again'
    return line


def run_command(
    main: Callable[[], int | None], stopped: str = 'Stopped.'
) -> None:
    """Run a tool's main function and exit with its code.

    With ``--debug`` among the process' arguments, from which it is taken, an
    error's traceback is printed, too.

    Args:
        main: Takes nothing and returns an exit code or None.
        stopped: What to say after Ctrl-C.

    Raises:
        SystemExit: Always, with one line for the errors of
            :func:`one_line_errors`.
    """
    debug = '--debug' in sys.argv[1:]
    if debug:
        sys.argv.remove('--debug')
    with one_line_errors(stopped, debug):
        code = main()
    sys.exit(code)


_NAME = f'{UserError.__module__}.{UserError.__qualname__}'
