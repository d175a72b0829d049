"""GLEAN and LightGLEAN as architectures of spandrel.

>>> import spandrel_glean
>>> architectures = spandrel_glean.install()
>>> sorted(support.architecture.id for support in architectures)
['GLEAN', 'LightGLEAN']
"""

from __future__ import annotations

from spandrel import MAIN_REGISTRY, ArchSupport

from spandrel_glean.architectures import GLEANArch, LightGLEANArch

__all__ = ["GLEANArch", "LightGLEANArch", "install"]


def install() -> list[ArchSupport]:
    """Add both architectures to spandrel's main registry, once; return what was added."""
    supports = (ArchSupport.from_architecture(arch) for arch in (GLEANArch(), LightGLEANArch()))
    return MAIN_REGISTRY.add(*supports, ignore_duplicates=True)
