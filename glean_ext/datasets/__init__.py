"""Image sources, transforms and the sampler that MMagic lacks, and the preparation of images for them.

The names below are loaded when they are asked for: preparing images needs none of MMagic, which takes seconds to load.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pairs import LoadOrMakeLQ, LoadRGB, SRFolderDataset
    from .sampler import ResumableSampler

__all__ = ["LoadOrMakeLQ", "LoadRGB", "ResumableSampler", "SRFolderDataset"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(".sampler" if name == "ResumableSampler" else ".pairs", __name__)
    return getattr(module, name)
