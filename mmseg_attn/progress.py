# Copyright (c) mmseg_attn contributors.
"""Progress of long work, on a terminal and in a log."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `info` runs where no host has brought rich
    from rich.console import Console
    from rich.progress import Progress


@contextmanager
def quiet_hosts() -> Iterator[None]:
    """Hide the host packages' warnings about parts that are not used.

    Yields:
        Nothing; the warnings come back afterwards.
    """
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            # What this package itself has to say stays.
            warnings.filterwarnings('default', module=r'mmseg_attn\b')
            yield
    finally:
        logging.disable(before)


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Hide what the host packages print and warn while they are imported.

    Yields:
        Nothing; both come back afterwards.
    """
    with quiet_hosts(), redirect_stdout(StringIO()):
        yield


def make_console(width: int) -> Console:
    """Make a console on standard output that prints text as it is.

    Args:
        width: Characters in a line where there is no terminal.

    Returns:
        Without rich's markup and highlights.
    """
    from rich.console import Console

    width = None if sys.stdout.isatty() else width
    return Console(width=width, markup=False, highlight=False)


def make_progress(every: float = 10.0) -> Progress:
    """Make a progress display on standard error, with the time left.

    Args:
        every: Where there is no terminal to draw bars on, write a line this
            often, in seconds.

    Returns:
        To be used as a context manager.
    """
    from .progress_lines import ProgressLines

    return ProgressLines(every)
