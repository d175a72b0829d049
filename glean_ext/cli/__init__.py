"""The command line. Imports nothing heavy, so that ``--help`` answers at once."""

from glean_ext.cli.base import LAUNCHED, Parser, add_config_options, add_run_options, as_option, fail, run

__all__ = ["LAUNCHED", "Parser", "add_config_options", "add_run_options", "as_option", "fail", "run"]
