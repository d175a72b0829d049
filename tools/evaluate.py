"""Measure folders of restored images: ``glean evaluate``, from a checkout."""

from __future__ import annotations

from glean_ext import cli
from glean_ext.cli.evaluate import main

if __name__ == "__main__":
    cli.run(main)
