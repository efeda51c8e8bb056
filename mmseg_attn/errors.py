# Copyright (c) mmseg_attn contributors.
"""The error for what the user can put right."""

import difflib
import errno
import sys
from collections.abc import Callable, Iterable

from .hosts import missing_mmdet


class UserError(ValueError):
    """Something the user can put right: commands print it as one line."""


def near(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """Ask whether a name that is not there was meant to be another.

    Args:
        name: What was asked for.
        names: What there is.
        cutoff: How alike they must be, from 0 to 1.

    Returns:
        A sentence after a space, to be appended to a message; empty where
        none is near.
    """
    found = difflib.get_close_matches(name, list(names), cutoff=cutoff)
    return f' Did you mean {" or ".join(found)}?' if found else ''


def run_command(main: Callable[[], int | None]) -> None:
    """Run a command's main function and exit with its code.

    A :class:`UserError`, a full disk or a missing MMDetection ends as one
    readable line and exit code 1; every other error keeps its traceback.

    Args:
        main: Takes nothing and returns an exit code or None.
    """
    try:
        code = main()
    except UserError as error:
        # From a loader's worker process it comes behind a traceback.
        message = str(error).rpartition(f'{_NAME}: ')[2]
        code = f'Error: {" ".join(message.split())}'
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        code = f'Error: {error}. Free some space and run with --resume.'
    except ModuleNotFoundError as error:
        if not missing_mmdet(error):
            raise
        code = f'Error: {missing_mmdet(error)}'
    sys.exit(code)


_NAME = f'{UserError.__module__}.{UserError.__qualname__}'
