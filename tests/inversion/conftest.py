"""Every test of this folder draws the same random numbers in each run."""

from support.seeding import seed

__all__ = ["seed"]
