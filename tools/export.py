"""Export a network to one file: ``glean export``, from a checkout."""

from __future__ import annotations

from glean_ext import cli
from glean_ext.cli.export import main

if __name__ == "__main__":
    cli.run(main)
