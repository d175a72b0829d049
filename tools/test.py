"""Measure a restorer on its test set: ``glean test``, from a checkout."""

from __future__ import annotations

from glean_ext import cli
from glean_ext.cli.test import main

if __name__ == "__main__":
    cli.run(main)
