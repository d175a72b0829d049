"""Train a restorer or a bank: ``glean train``, from a checkout."""

from __future__ import annotations

from glean_ext import cli
from glean_ext.cli.train import main

if __name__ == "__main__":
    cli.run(main)
