"""Show what a config's network costs: ``glean model-info``, from a checkout."""

from __future__ import annotations

from glean_ext import cli
from glean_ext.cli.model_info import main

if __name__ == "__main__":
    cli.run(main)
