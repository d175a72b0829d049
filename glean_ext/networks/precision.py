"""How networks are computed: mixed precision by their own switch (``fp16_enabled``), and the memory layout."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import nn

logger = logging.getLogger(__name__)


def mixed_precision(device: torch.device, enabled: bool) -> AbstractContextManager:
    """Autocast to fp16 on a GPU and to bf16 on a CPU that computes in it, unless an autocast region is active."""
    if not enabled or torch.is_autocast_enabled(device.type) or (device.type == "cpu" and not cpu_has_bf16()):
        return nullcontext()
    return torch.autocast(device.type, torch.float16 if device.type == "cuda" else torch.bfloat16)


@cache
def cpu_has_bf16() -> bool:
    """Whether oneDNN computes bf16 on this CPU (from AVX-512 on); PyTorch's own take 5 to 40 times fp32's time."""
    try:
        has = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a PyTorch without oneDNN
        has = False
    if not has:
        logger.info("This CPU has no fast bf16 (that takes AVX-512); what may choose its precision runs in fp32.")
    return has


def channels_last(net: nn.Module) -> None:
    """Store the convolution weights of ``net`` channels-last, the layout that CPUs and tensor cores work in.

    Activations follow the weights, so nothing is converted in between.
    """
    for param in net.parameters():
        if param.ndim == 4:
            param.data = param.data.contiguous(memory_format=torch.channels_last)
