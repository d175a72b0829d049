"""Small networks that tests export, and their files."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import torch
from support.networks import TINY, randomize
from torch import nn

from glean_ext.inference.export_formats import SUFFIXES
from glean_ext.networks import build_network

KINDS = {"glean": TINY, "light": TINY | {"type": "LightGLEANStyleGANv2", "global_skip": True, "trunk": "residual"}}


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return randomize(build_network(KINDS[kind])).requires_grad_(False).eval()


def write_sources(folder: Path) -> None:
    """Configs and checkpoints: glean.py, glean.pth, light.py, light.pth."""
    for kind, arguments in KINDS.items():
        text = f"model = dict(type='GLEAN', generator=dict(**{arguments}))\n"
        (folder / f"{kind}.py").write_text(text)
        torch.save(network(kind).state_dict(), folder / f"{kind}.pth")


def export_once(tool: ModuleType, home: Path, kind: str, form: str, dtype: str) -> Path:
    """The file that ``tools/export.py`` writes of a network in ``home``; it writes it once."""
    out = home / f"{kind}_{dtype}{SUFFIXES[form]}"
    if not out.exists():
        arguments = [home / f"{kind}.py", home / f"{kind}.pth", out, "--format", form, "--dtype", dtype]
        assert tool.main([*map(str, arguments)]) == 0
    return out
