"""The console of commands that print lines of any text."""

from __future__ import annotations

from rich.console import Console

from glean_ext.utils.messages import printable


class PlainConsole(Console):
    """A console for lines of any text."""

    def __init__(self) -> None:
        super().__init__(soft_wrap=True, markup=False, highlight=False, emoji=False)

    def show(self, line: str) -> None:
        self.print(printable(line))

    def on_broken_pipe(self) -> None:
        """Leave the error to :func:`glean_ext.cli.run`."""
        raise
