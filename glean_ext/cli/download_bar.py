"""The progress of downloads on a command line: a bar on stderr, plain lines where that is a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import TaskID

    from glean_ext.utils.progress import ProgressBar

MB = 1e6


class DownloadBar:
    """What ``glean_ext.utils.downloads`` calls; the bar appears with the first download and ends with it."""

    def __init__(self) -> None:
        self.bar: ProgressBar | None = None
        self.task: TaskID | None = None

    def __call__(self, name: str, done: int, total: int | None) -> None:
        if self.bar is None or self.task is None:
            from rich.console import Console

            from glean_ext.utils.progress import ProgressBar

            self.bar = ProgressBar(Console(stderr=True), transient=True)
            self.task = self.bar.add_task(f"downloading {name} (MB)")
            self.bar.start()
        self.bar.update(self.task, completed=done // MB, total=None if total is None else total // MB)
        if done == total:
            self.close()

    def close(self) -> None:
        """Remove the bar, also where the download failed."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
