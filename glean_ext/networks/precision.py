"""The precision that networks run in (their switch is ``fp16_enabled``), and their memory layout."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from itertools import chain

import torch
from torch import nn

from glean_ext.utils.hardware import BF16_INSTRUCTIONS

logger = logging.getLogger(__name__)


def mixed_precision(device: torch.device, enabled: bool) -> AbstractContextManager:
    """Autocast to fp16 on a GPU and to bf16 on a CPU that computes in it, unless an autocast region is active."""
    if not enabled or torch.is_autocast_enabled(device.type):
        return nullcontext()
    if device.type == "cpu" and not cpu_has_bf16():
        log_fp32_fallback()
        return nullcontext()
    return torch.autocast(device.type, torch.float16 if device.type == "cuda" else torch.bfloat16)


def runs_in_fp16(net: nn.Module, device: torch.device) -> bool:
    """Whether fp16 is what autocast around ``net`` computes in, or ``net`` or a part of it can switch to it."""
    fp16_around = torch.get_autocast_dtype(device.type) == torch.float16
    return fp16_around or any(getattr(module, "fp16_enabled", False) for module in net.modules())


@contextmanager
def full_precision(net: nn.Module, device: torch.device) -> Iterator[None]:
    """Compute ``net`` in fp32: without the autocast around it and without those that it or its parts open.

    It works for MMagic's networks, too, whose layers have a switch ``fp16_enabled`` each.
    """
    switched_on = [module for module in net.modules() if getattr(module, "fp16_enabled", False)]
    for module in switched_on:
        module.fp16_enabled = False  # type: ignore[assignment]
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for module in switched_on:
            module.fp16_enabled = True  # type: ignore[assignment]


def without_own_autocast(net: nn.Module) -> nn.Module:
    """The network, or a copy that shares its parts, which runs in no other precision than that around it."""
    if not getattr(net, "fp16_enabled", False):
        return net
    net = copy.copy(net)
    net.fp16_enabled = False  # type: ignore[assignment]
    return net


@cache
def cpu_has_bf16() -> bool:
    """Whether this CPU has instructions for bf16; on one without, bf16 takes up to 40 times as long as fp32."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # missing in older PyTorch
    return any(capabilities.get(name) for name in BF16_INSTRUCTIONS)


def fast_dtype(device: torch.device) -> torch.dtype:
    """The fastest precision for inference: bf16 where the hardware computes in it, else fp16 or fp32.

    fp16 is for NVIDIA's compute capabilities 7.0 and 7.5 (V100, T4); earlier GPUs gain nothing from half precision.
    """
    if device.type != "cuda":
        return torch.bfloat16 if cpu_has_bf16() else torch.float32
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16 if torch.cuda.get_device_capability(device) >= (7, 0) else torch.float32


@cache
def log_fp32_fallback() -> None:
    """Log, once, that this CPU computes in fp32 although mixed precision was requested."""
    logger.info("This CPU has no instructions for bf16, so the network runs in fp32 instead of mixed precision.")


def channels_last(net: nn.Module) -> None:
    """Store the convolution weights of ``net``, buffers too, channels-last: the layout of CPUs and tensor cores.

    Activations follow the weights, so nothing is converted in between.
    """
    for weight in chain(net.parameters(), net.buffers()):
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
