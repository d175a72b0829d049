"""Convert a StyleGAN2 checkpoint into a bank: ``glean convert-bank``, from a checkout."""

from __future__ import annotations

from glean_ext import cli
from glean_ext.cli.convert_bank import main

if __name__ == "__main__":
    cli.run(main)
