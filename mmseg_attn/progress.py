# Copyright (c) mmseg_attn contributors.
"""Progress of long work, on a terminal and in a log."""

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


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
    return _Lines(
        TextColumn('{task.description}', markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn('left'),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        every=every,
    )


class _Lines(Progress):
    """Bars on a terminal, a line now and then in a log."""

    def __init__(self, *columns: object, every: float, **kwargs) -> None:
        self._every, self._last = every, time.monotonic()
        super().__init__(*columns, **kwargs)
        # Without a terminal rich draws nothing until the end.
        self.live.auto_refresh &= self.console.is_terminal

    def refresh(self) -> None:
        if self.console.is_terminal:
            super().refresh()

    def advance(self, task_id: int, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._line(task_id)

    def update(self, task_id: int, **fields) -> None:
        super().update(task_id, **fields)
        self._line(task_id)

    def _line(self, task_id: int) -> None:
        now = time.monotonic()
        if self.console.is_terminal or now - self._last < self._every:
            return
        self._last = now
        task = self._tasks[task_id]
        left = task.time_remaining
        left = '' if left is None else f', {left:.0f} s left'
        self.console.print(
            f'{task.description}: {task.completed:.0f} of '
            f'{task.total or 0:.0f}{left}',
            highlight=False,
        )
