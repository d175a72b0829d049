"""Image sources, transforms and the sampler that MMagic lacks."""

from .pairs import LoadOrMakeLQ, LoadRGB, SRFolderDataset
from .sampler import ResumableSampler

__all__ = ["LoadOrMakeLQ", "LoadRGB", "ResumableSampler", "SRFolderDataset"]
