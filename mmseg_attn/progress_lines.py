# Copyright (c) mmseg_attn contributors.
"""What shows the progress."""

import time
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class ProgressLines(Progress):
    """Bars on a terminal, a line now and then in a log.

    Args:
        every: Seconds from one line to the next.
    """

    def __init__(self, every: float) -> None:
        self._every, self._last = every, time.monotonic()
        super().__init__(
            TextColumn('{task.description}', markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn('left'),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        # Without a terminal rich draws nothing until the end.
        self.live.auto_refresh &= self.console.is_terminal

    def refresh(self) -> None:
        """Draw the bars, on a terminal."""
        if self.console.is_terminal:
            super().refresh()

    def advance(self, task_id: int, advance: float = 1) -> None:
        """Go on, and say so if it is time."""
        super().advance(task_id, advance)
        self._line(task_id)

    def update(self, task_id: int, **fields: Any) -> None:
        """Change a task, and say so if it is time."""
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
