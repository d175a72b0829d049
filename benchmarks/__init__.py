"""Measures this package side by side with MMagic's own classes; ``python -m benchmarks`` is its command line."""
