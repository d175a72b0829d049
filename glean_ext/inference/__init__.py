"""Restoring images: size policies, tiles, memory, and the backends that run a network."""
