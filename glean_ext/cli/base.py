"""What the command-line tools share. Imports nothing heavy, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from glean_ext.errors import InputError

POSITIONALS = {"config", "checkpoint", "input", "source", "out"}  # parameters that are no options
LAUNCHED = "GLEAN_EXT_LAUNCHED"  # set in the processes that glean_ext.cli.launch starts


def as_option(parameter: str, value: str | None = None) -> str:
    """How a command line knows a Python parameter.

    >>> as_option("size_policy", "resize"), as_option("photo", "True"), as_option("checkpoint")
    ('--size-policy resize', '--photo', 'CHECKPOINT')
    >>> as_option("discriminator", "False")
    '--no-discriminator'
    """
    if parameter in POSITIONALS:
        return value or parameter.upper()
    name = f"--{'no-' if value == 'False' else ''}{parameter.replace('_', '-')}"
    return name if value in (None, "True", "False") else f"{name} {value}"


def fail(reason: object) -> NoReturn:
    """Print one line on stderr and exit with code 2. One of several processes leaves the line to the launcher."""
    line = " ".join((reason.render(as_option) if isinstance(reason, InputError) else str(reason)).split())
    report = os.environ.get("TORCHELASTIC_ERROR_FILE")  # where torchrun looks
    if report and LAUNCHED in os.environ:
        with open(report, "w") as file:
            json.dump({"message": line, "timestamp": int(time.time())}, file)
    else:
        print(f"error: {line}", file=sys.stderr)
    raise SystemExit(2)


class Parser(argparse.ArgumentParser):
    """Tells bad usage in one line."""

    def error(self, message: str) -> NoReturn:
        fail(f"{message}. See {self.prog} --help.")


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """What every tool that reads a config takes."""
    parser.add_argument(
        "--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="changes to the config"
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """What the tools that start mmengine's runner take; ``config.load_run_config`` reads it."""
    add_config_options(parser)
    parser.add_argument("--work-dir", help="where logs and checkpoints go (default: work_dirs/<name of the config>)")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help="set by the launcher")


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a tool: 0 when done, 2 and one line for bad input, 130 for Ctrl-C; anything else is a bug and raises."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may have any bytes, which no encoding can print
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = main()
    except InputError as error:
        fail(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    raise SystemExit(code or 0)
