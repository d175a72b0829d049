"""The progress of long work: a bar with the time left on a terminal, plain lines now and then in a log file."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 15  # where there is no terminal


class ProgressBar(Progress):
    """A progress bar for a context: ``with ProgressBar() as bar: bar.add_task("training", total=100)``.

    Args:
        console: Where it is shown; None is stdout.
        transient: Remove the bar when it is done.
        disable: Show nothing.
        details: A column to the right, the field ``details`` of the tasks.
    """

    def __init__(
        self, console: Console | None = None, transient: bool = False, disable: bool = False, details: bool = False
    ):
        console = console or Console()
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        columns += [TextColumn("{task.fields[details]}")] if details else []
        super().__init__(*columns, console=console, transient=transient, disable=disable or not console.is_terminal)
        self._lines = not disable and not console.is_terminal
        self._last_line = time.monotonic()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """As rich's; ``completed=``, ``advance=``, ``total=``, ``description=``, ``visible=`` and fields."""
        super().update(task_id, **changes)
        self._write_line(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._write_line(task_id)

    def _write_line(self, task_id: TaskID) -> None:
        if not self._lines or time.monotonic() - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = time.monotonic()
        task = self._tasks[task_id]
        total = "?" if task.total is None else f"{task.total:g}"
        left = "" if task.time_remaining is None else f", {task.time_remaining:.0f} s left"
        details = task.fields.get("details", "")
        self.console.print(f"{task.description} {task.completed:g}/{total}{left} {details}".rstrip())
