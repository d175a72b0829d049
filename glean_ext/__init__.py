"""GLEAN for MMagic."""

__version__ = "0.1.0"
