"""``glean-restore``, which ``tools/infer.py`` is. Light: ``--help`` answers at once."""

from __future__ import annotations

from collections.abc import Sequence

from glean_ext import cli
from glean_ext.cli.restore_options import parse


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool with these arguments, by default those of the process."""
    options = parse(argv)

    from glean_ext.cli.restore_run import run

    for variant in options.variants():
        run(variant)
    return 0


def console_script() -> None:
    """The ``glean-restore`` that ``pip`` installs."""
    cli.run(main)
