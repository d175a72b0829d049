"""Frozen copies of parameters and modules in another precision."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from glean_ext.errors import InputError
from glean_ext.networks.encoder import StyleCodes
from glean_ext.networks.precision import channels_last


def constant(value: Tensor, dtype: torch.dtype = torch.float32, share: bool = False) -> nn.Parameter:
    """A frozen copy; convolution weights are stored channels-last, the layout that CPUs and tensor cores use.

    With ``share`` it is no copy where dtype and layout are these already.
    """
    value = value.detach().to(dtype, copy=not share)
    layout = torch.channels_last if value.ndim == 4 else torch.contiguous_format
    return nn.Parameter(value.contiguous(memory_format=layout), requires_grad=False)


ModuleT = TypeVar("ModuleT", bound=nn.Module)


def converted(module: ModuleT, dtype: torch.dtype, share: bool = False) -> ModuleT:
    """A frozen copy in another precision, without a temporary copy in the module's own.

    ``share`` is that of :func:`constant`, for which ``module`` becomes channels-last.
    """
    if share:
        channels_last(module)  # weight by weight, so that none has to be copied below
    copies: dict[int, Any] = {}
    for part in module.modules():
        copies |= {id(param): constant(param, dtype, share) for param in part.parameters(recurse=False)}
        floats = (buffer for buffer in part.buffers(recurse=False) if buffer.is_floating_point())
        copies |= {id(buffer): buffer.detach().to(dtype, copy=not share) for buffer in floats}
    return copy.deepcopy(module, copies)


def drop_unused_codes(encoder: nn.Module, share: bool = False) -> None:
    """Remove the weights of style codes that are not computed."""
    for codes in encoder.modules():
        if isinstance(codes, StyleCodes):
            codes.out_features -= codes.unused * codes.style_channels
            codes.unused = 0
            for name in "weight", "bias":
                value = getattr(codes, name)
                setattr(codes, name, constant(value[: codes.out_features], value.dtype, share))


def images_together(x: Tensor) -> int:
    """The images of a batch that are computed together: on a CPU one, as fast and in less memory; elsewhere all."""
    return 1 if x.device.type == "cpu" else len(x)


def no_fast_form(module: object) -> InputError:
    return InputError(
        f"prepare_for_inference knows no fast form of {type(module).__name__}. It takes a GLEANStyleGANv2 or "
        "LightGLEANStyleGANv2 that has a bank and a decoder and takes no references; use any other network as it is."
    )
