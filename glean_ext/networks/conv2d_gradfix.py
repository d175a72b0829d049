"""Convolutions whose gradients take less memory and time than PyTorch's; derivatives of any order exist.

PyTorch's convolution keeps its input for the weight's gradient even where the weight is frozen. While GLEAN is trained,
the bank, every FIR filter and, in the generator's step, the discriminator are frozen. And on CPUs, oneDNN is slow at
the gradient of a weight where images are stored channels-last, the layout in which everything else is faster. There,
large 3x3 convolutions are trained by matrix products, mostly by Winograd's algorithm (``winograd.py``).
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from glean_ext.networks.winograd import TILE, convolution_3x3, weight_gradient_3x3

# From which size on convolutions are trained by matrix products. With one thread and AVX2 (AVX-512), Winograd's
# algorithm takes this share of oneDNN's time for forward pass and both gradients: 0.42 (0.86) at 512 channels and two
# images of 32x32, 0.32 (0.76) at 256 channels and 64x64, 0.40 (0.90) at 128 channels and 128x128, 0.87 (1.38) at 64
# channels and two images of 64x64; at 512 channels and 16x16 1.1. The gradient of a weight with stride 2: 0.3 (0.7).
MIN_PIXELS = 2 * 32**2


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
    if torch.is_grad_enabled() and (frozen or _by_products(x, weight, settings)):
        return _Convolution.apply(x, weight, bias, settings)
    return _convolution(x, weight, bias, settings)


def _by_products(x: Tensor, weight: Tensor, settings: _Settings) -> bool:
    """Whether to train by matrix products: on a CPU, in fp32, with large images that are stored channels-last.

    Never in graphs that are compiled or exported: these would be bound to the sizes that are asked for here.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return False
    fp32 = x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled(x.device.type)
    return (
        fp32
        and (_by_winograd(x, settings) or settings[:-1] == (2, 0, 1, False))
        and weight.shape[2:] == (3, 3)
        and min(weight.shape[:2]) >= _min_channels()
        and x.numel() >= MIN_PIXELS * x.shape[1]
        and not x.is_contiguous()
    )


@cache
def _min_channels() -> int:
    return 64 if torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2") else 128


def _by_winograd(x: Tensor, settings: _Settings) -> bool:
    return settings[:-1] == (1, 1, 1, False) and x.shape[2] % TILE == x.shape[3] % TILE == 0


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
        ctx.by_products = _by_products(x, weight, settings)
        if ctx.by_products and _by_winograd(x, settings):
            return convolution_3x3(x, weight * settings.scale, bias)
        return _convolution(x, weight, bias, settings)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (weight, x), (grad,) = ctx.saved_tensors, grads
        weight = weight.to(grad.dtype)  # The forward pass may have run under autocast.
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        by_products = ctx.by_products and not torch.is_grad_enabled()  # Derivatives of derivatives are PyTorch's.
        return (
            _input_gradient(grad, weight, ctx.size, ctx.settings, by_products).to(ctx.dtype) if of_x else None,
            _weight_gradient(grad, weight, x, ctx.settings, by_products) if of_weight else None,
            grad.sum((0, 2, 3)) if of_bias else None,
            None,
        )


def _input_gradient(grad: Tensor, weight: Tensor, size: torch.Size, settings: _Settings, by_products: bool) -> Tensor:
    if by_products and _by_winograd(grad, settings):
        return convolution_3x3(grad, weight.flip(2, 3).transpose(0, 1) * settings.scale)
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


def _weight_gradient(grad: Tensor, weight: Tensor, x: Tensor, settings: _Settings, by_products: bool) -> Tensor:
    if not by_products:
        return settings.scale * conv2d_weight(x, weight.shape, grad, settings.stride, settings.padding)
    if _by_winograd(grad, settings):
        return weight_gradient_3x3(x, grad).mul_(settings.scale)
    return _valid_weight_gradient(grad, weight, x, settings.stride).mul_(settings.scale)


def _valid_weight_gradient(grad: Tensor, weight: Tensor, x: Tensor, stride: int) -> Tensor:
    """That of a convolution without padding: a matrix product for each pixel of the kernel."""
    (outputs, channels, *kernel), (height, width) = weight.shape, grad.shape[2:]
    pixels = grad.permute(0, 2, 3, 1).flatten(0, 2)  # (P, O)
    gradient = grad.new_empty(outputs, *kernel, channels)
    for i, j in product(*map(range, kernel)):
        seen = x[:, :, i : i + stride * height : stride, j : j + stride * width : stride][:, :, :height, :width]
        gradient[:, i, j] = pixels.t() @ seen.permute(0, 2, 3, 1).flatten(0, 2)  # (O, P) @ (P, C)
    return gradient.permute(0, 3, 1, 2)
