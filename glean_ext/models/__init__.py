"""Models that MMagic builds from a config: the restorer, its losses, the bank in its trainer."""
