"""Serve the page: ``glean web``, from a checkout."""

from __future__ import annotations

from glean_ext import cli
from glean_ext.cli.web import main

if __name__ == "__main__":
    cli.run(main)
