"""What MMagic builds from a config: the restorer, its losses, the trainer of banks."""
