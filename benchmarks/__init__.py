"""Measures this package beside MMagic's own classes; ``python -m benchmarks`` is the command line."""
