"""Image sources and transforms that MMagic lacks."""

from .pairs import LoadOrMakeLQ, SRFolderDataset

__all__ = ["LoadOrMakeLQ", "SRFolderDataset"]
