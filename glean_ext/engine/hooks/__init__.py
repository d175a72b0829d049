"""Hooks of the training."""
