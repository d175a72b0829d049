"""Restore images, folders, videos and photographs: ``glean restore``, from a checkout."""

from __future__ import annotations

from glean_ext import cli
from glean_ext.cli.restore import main

if __name__ == "__main__":
    cli.run(main)
