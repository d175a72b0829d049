"""Image sources and transforms that MMagic lacks."""

from .pairs import LoadOrMakeLQ, LoadRGB, SRFolderDataset

__all__ = ["LoadOrMakeLQ", "LoadRGB", "SRFolderDataset"]
