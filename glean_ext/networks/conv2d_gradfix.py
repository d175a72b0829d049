"""Convolutions whose gradients take less memory and time than PyTorch's; values and derivatives are equal.

PyTorch's convolution keeps its input for the weight's gradient even where the weight is frozen. While GLEAN is trained,
the bank, every FIR filter and, in the generator's step, the discriminator are frozen. And on a CPU without AVX-512,
oneDNN takes longer for the gradient of a weight when large images are stored channels-last, the layout in which
everything else is faster.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Numbers in an image from which on a weight's gradient is computed on channels-first copies. With AVX2 and one thread,
# forward and backward pass of such a convolution take 0.57 to 0.84 of PyTorch's time (64 channels at 256x256, 512 at
# 32x32), those of a smaller image 0.99 to 1.5 (64 channels at 64x64, 160 at 16x16).
LARGE_IMAGE = 2**19


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` by means of :func:`convolution`: same stride and zero padding on both axes, no dilation."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return convolution(input, weight, bias, self.stride[0], int(self.padding[0]), self.groups)


class _Settings(NamedTuple):
    stride: int
    padding: int
    groups: int
    transposed: bool
    scale: float


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    transposed: bool = False,
    scale: float = 1.0,
) -> Tensor:
    """``F.conv2d`` or, with ``transposed``, ``F.conv_transpose2d``; derivatives of any order exist.

    Args:
        x: (N, C, H, W)
        weight: (O, C / groups, k, k), or (C, O / groups, k, k) if transposed.
        bias: (O,)
        stride: On both axes, in pixels.
        padding: Zeros on all sides, in pixels.
        groups: Groups of channels.
        transposed: Compute the transposed convolution.
        scale: Factor of the weight.
    """
    settings = _Settings(stride, padding, groups, transposed, scale)
    frozen = x.requires_grad and not weight.requires_grad
    if torch.is_grad_enabled() and (frozen or (weight.requires_grad and _weight_gradient_is_slow(x))):
        return _Convolution.apply(x, weight, bias, settings)
    return _convolution(x, weight, bias, settings)


def _weight_gradient_is_slow(x: Tensor) -> bool:
    half = x.dtype.itemsize < 4 or torch.is_autocast_enabled(x.device.type)
    large = x[0].numel() >= LARGE_IMAGE
    return x.device.type == "cpu" and not half and large and not x.is_contiguous() and _no_avx512()


@cache
def _no_avx512() -> bool:
    return torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")


def prefers_channels_first(x: Tensor) -> bool:
    """Whether a depthwise convolution is faster with ``x`` stored channels-first, copies included.

    On GPUs, PyTorch gives channels-last tensors to cuDNN, which is slow at it in half precision; its own kernel for
    channels-first is not.
    """
    return x.is_cuda and x.dtype != torch.float32


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, settings: _Settings) -> Tensor:
    function = F.conv_transpose2d if settings.transposed else F.conv2d
    weight = weight if settings.scale == 1 else weight * settings.scale
    where = {"stride": settings.stride, "padding": settings.padding, "groups": settings.groups}
    if settings.groups > 1 and settings.groups == x.shape[1] and prefers_channels_first(x):
        # The weight is cloned because its strides, with one channel, would count as channels-last.
        y = function(x.contiguous(), weight.clone(memory_format=torch.contiguous_format), bias, **where)
        return y.contiguous(memory_format=torch.channels_last)
    return function(x, weight, bias, **where)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, settings: _Settings) -> Tensor:
        # The weight is kept without its scale, so it is not copied.
        ctx.save_for_backward(weight, x if ctx.needs_input_grad[1] else None)
        ctx.settings, ctx.size, ctx.dtype = settings, x.shape[2:], x.dtype
        return _convolution(x, weight, bias, settings)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (weight, x), (grad,) = ctx.saved_tensors, grads
        weight = weight.to(grad.dtype)  # The forward pass may have run under autocast.
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        return (
            _input_gradient(grad, weight, ctx.size, ctx.settings).to(ctx.dtype) if of_x else None,
            _weight_gradient(grad, weight, x, ctx.settings) if of_weight else None,
            grad.sum((0, 2, 3)) if of_bias else None,
            None,
        )


def _input_gradient(grad: Tensor, weight: Tensor, size: torch.Size, settings: _Settings) -> Tensor:
    if settings.transposed:
        return convolution(grad, weight, None, settings.stride, settings.padding, settings.groups, scale=settings.scale)
    if settings.groups == len(weight) > 1 and settings.stride == 1:  # depthwise, for which GPUs have fast kernels
        padding = weight.shape[-1] - 1 - settings.padding
        return convolution(grad, weight.flip(2, 3), None, 1, padding, settings.groups, scale=settings.scale)
    # The rows and columns at the end that the stride skipped, so that the gradient has the size of the input.
    sides = zip(size, weight.shape[2:], strict=True)
    skipped = [(side + 2 * settings.padding - kernel) % settings.stride for side, kernel in sides]
    return F.conv_transpose2d(
        grad, weight * settings.scale, None, settings.stride, settings.padding, skipped, settings.groups
    )


def _weight_gradient(grad: Tensor, weight: Tensor, x: Tensor, settings: _Settings) -> Tensor:
    grad, x, weight = (t.contiguous() for t in (grad, x, weight))
    pairs = [[value, value] for value in (settings.stride, settings.padding, 1)]  # the last is the dilation
    _, gradient, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, *pairs, settings.transposed, [0, 0], settings.groups, [False, True, False]
    )
    return gradient * settings.scale
