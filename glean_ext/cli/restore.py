"""The arguments of ``glean-restore``, which ``tools/infer.py`` is. Light: ``--help`` answers at once."""

from __future__ import annotations

from collections.abc import Sequence

from glean_ext import cli
from glean_ext.cli.restore_options import add_photo_options, make_parser, names_of


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool with these arguments, by default those of the process."""
    parser = make_parser()
    args = parser.parse_args(argv)
    given = [name for name in names_of(add_photo_options) if getattr(args, name) != parser.get_default(name)]
    if given and not args.photo:
        parser.error(f"--{given[0].replace('_', '-')} has no effect without --photo")

    from glean_ext.cli.restore_run import run_infer

    run_infer(args)
    return 0


def console_script() -> None:
    """The ``glean-restore`` that ``pip`` installs."""
    cli.run(main)
