"""Frozen copies of parameters and modules in another precision."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from glean_ext.errors import InputError


def constant(value: Tensor, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    """A frozen copy; convolution weights are stored channels-last, the layout that CPUs and tensor cores use."""
    value = value.detach().to(dtype, copy=True)
    layout = torch.channels_last if value.ndim == 4 else torch.contiguous_format
    return nn.Parameter(value.contiguous(memory_format=layout), requires_grad=False)


ModuleT = TypeVar("ModuleT", bound=nn.Module)


def converted(module: ModuleT, dtype: torch.dtype) -> ModuleT:
    """A frozen copy in another precision, without a temporary copy in the module's own."""
    return copy.deepcopy(module, {id(param): constant(param, dtype) for param in module.parameters()})


def no_fast_form(module: nn.Module) -> InputError:
    return InputError(
        f"prepare_for_inference knows no fast form of {type(module).__name__}. It takes a GLEANStyleGANv2 or "
        "LightGLEANStyleGANv2 that has both a bank and a decoder; use any other network as it is."
    )
