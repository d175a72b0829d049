"""Mixed precision for networks that carry their own switch (``fp16_enabled``)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def mixed_precision(device: torch.device, enabled: bool) -> AbstractContextManager:
    """Autocast to fp16 on a GPU and to bf16 elsewhere, unless an autocast region is active already."""
    if not enabled or torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, torch.float16 if device.type == "cuda" else torch.bfloat16)
