"""Prepare a data set: ``glean prepare-data``, from a checkout."""

from __future__ import annotations

from glean_ext import cli
from glean_ext.cli.prepare_data import main

if __name__ == "__main__":
    cli.run(main)
