"""How networks are computed: mixed precision by their own switch (``fp16_enabled``), and the memory layout."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn


def mixed_precision(device: torch.device, enabled: bool) -> AbstractContextManager:
    """Autocast to fp16 on a GPU and to bf16 elsewhere, unless an autocast region is active already."""
    if not enabled or torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, torch.float16 if device.type == "cuda" else torch.bfloat16)


def channels_last(net: nn.Module) -> None:
    """Store the convolution weights of ``net`` channels-last, the layout that CPUs and tensor cores work in.

    Activations follow the weights, so nothing is converted in between.
    """
    for param in net.parameters():
        if param.ndim == 4:
            param.data = param.data.contiguous(memory_format=torch.channels_last)
