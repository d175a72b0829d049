"""``python -m glean_ext`` is ``glean``."""

from glean_ext.cli.main import console_script

console_script()
