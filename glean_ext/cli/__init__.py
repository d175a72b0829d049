"""The command line. Imports nothing heavy, so that ``--help`` answers at once."""

from glean_ext.cli.base import (
    Parser,
    add_config_options,
    add_run_options,
    as_option,
    device_name,
    fail,
    run,
    write_error,
)
from glean_ext.cli.signals import LAUNCHED

__all__ = [
    "LAUNCHED", "Parser", "add_config_options", "add_run_options", "as_option", "device_name", "fail", "run",
    "write_error",
]  # fmt: skip
