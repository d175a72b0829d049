"""Measures this package side by side with MMagic's own classes; ``tools/benchmark.py`` is its command line."""
