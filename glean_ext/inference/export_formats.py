"""The forms in which networks are exported. Needs no torch, so that a wrong name is found at once."""

from __future__ import annotations

import os
from pathlib import Path

from glean_ext.errors import InputError

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
PACKAGES = {"onnx": ("torch", "onnx", "onnxscript", "onnxruntime"), "torch": ("torch",)}


def require_suffix(out: str | os.PathLike, format: str) -> None:
    """Raise InputError if a file of this form may not have that name."""
    out, suffix = Path(out), SUFFIXES[format]
    if out.suffix != suffix:
        raise InputError(f"{out}: {{format={format}}} writes {suffix}. Name it {out.with_suffix(suffix)}.", "format")
